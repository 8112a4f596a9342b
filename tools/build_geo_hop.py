"""Build GeoHop: questions of 1 to 4 searches over real countries and cities, and their corpus, as
shards.

    python tools/build_geo_hop.py --out data/geo_hop --seed 0

A country and its cities belong either to the training tasks or to the held-out ones; the corpus
holds both. The same seed gives the same bytes.
"""

import argparse
import random
from pathlib import Path
from typing import Any

from geo_hop_world import ENTITY_RELATIONS, World, build_world, document, hold_out

from megatron_trace.data.tasks import write_shards

TRAIN_TASKS = {1: 1_200, 2: 1_800, 3: 2_000, 4: 1_500}
"""Hops -> number of training tasks."""

HELDOUT_TASKS = 128
"""Held-out tasks of each number of hops."""


def draw_task(
    world: World, starts: list[str], allowed: set[str], hops: int, rng: random.Random
) -> dict[str, Any] | None:
    """A random chain of `hops` relations through `allowed` titles, none twice; None at a dead end."""
    chain, relations = [rng.choice(starts)], []
    for hop in range(hops):
        fields = world.get(chain[-1], {})
        choices = next_relations(fields, chain, allowed, last=hop == hops - 1)
        if not choices:
            return None
        relations.append(rng.choice(choices))
        chain.append(fields[relations[-1]])
    words = " of ".join(f"the {relation}" for relation in reversed(relations))
    return {
        "question": f"What is {words} of {chain[0]} ?",
        "answers": [chain[-1]],
        "hops": hops,
        "chain": chain,
        "relations": relations,
    }


def next_relations(
    fields: dict[str, str], chain: list[str], allowed: set[str], *, last: bool
) -> list[str]:
    """The relations of a document by which `chain` can continue."""
    choices = []
    for relation, value in fields.items():
        if value in chain:
            continue
        # Only an entity has a document to continue from; a currency or a domain can only be the
        # answer.
        if value in allowed if relation in ENTITY_RELATIONS else last:
            choices.append(relation)
    return choices


def draw_tasks(
    world: World, allowed: set[str], hops: int, count: int, name: str, seed: int
) -> list[dict[str, Any]]:
    """`count` different tasks (fewer where the world has no more)."""
    # Its own generator for each set, so that changing one set leaves the others as they are.
    rng = random.Random(f"{seed}/{name}/{hops}")
    starts = sorted(allowed)
    by_question: dict[str, dict[str, Any]] = {}
    for _ in range(200 * count):
        task = draw_task(world, starts, allowed, hops, rng)
        if task and len(by_question) < count:
            by_question.setdefault(task["question"], task)
    tasks = []
    for number, task in enumerate(by_question.values()):
        identifier = f"geo_hop/{name}/{hops}/{number:05d}"
        tasks.append({"id": identifier, **task})
    return tasks


def corpus(world: World, heldout: set[str]) -> list[dict[str, Any]]:
    """One document for each title."""
    documents = []
    for title, fields in world.items():
        text = document(title, fields)
        documents.append(
            {"title": title, "text": text, "fields": fields, "heldout": title in heldout}
        )
    return documents


def build(out: Path, seed: int) -> dict[str, int]:
    """Write all shards under `out`; returns the number of rows by file stem."""
    world, home = build_world()
    held = hold_out(world, home, random.Random(f"{seed}/split"))
    heldout = {title for title in world if home[title] in held}
    sets = {"corpus": corpus(world, heldout), "train": []}
    for hops, count in TRAIN_TASKS.items():
        sets["train"] += draw_tasks(world, set(world) - heldout, hops, count, "train", seed)
    for hops in TRAIN_TASKS:
        sets[f"heldout_{hops}"] = draw_tasks(world, heldout, hops, HELDOUT_TASKS, "heldout", seed)
    # The tasks to train on come last: `make` takes them for a sign that all is there.
    for name, rows in sorted(sets.items(), key=lambda item: item[0] == "train"):
        write_shards(rows, str(out / f"{name}-%06d.tar"))
    return {name: len(rows) for name, rows in sets.items()}


def main() -> None:
    """Parse the command line and build."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=Path("data/geo_hop"), help="folder for the shards"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for name, count in build(args.out, args.seed).items():
        print(f"{name:12s} {count:6d} rows")


if __name__ == "__main__":
    main()
