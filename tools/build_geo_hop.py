"""Build GeoHop: questions of several searches over real countries and cities, and their corpus, as
shards.

    python tools/build_geo_hop.py --out data/geo_hop --seed 0
    python tools/build_geo_hop.py --wide --out data/geo_hop_wide --seed 0
    python tools/build_geo_hop.py --short --out data/geo_hop_short --seed 0

The first has questions of 1 to 4 searches. The second has 1 to 12, from trivial to hopeless, in two
sets to train on: `broad`, whose tasks hardly recur in a run, and `recurring`, a few of them. The
third has the questions of the first that need 1 or 2 searches.

In the second no search can be left out: its answers are found by following all relations of the
question, never by following some of them. Its cities have two relations more, which make long
chains of that kind possible.

A country and its cities belong either to the training tasks or to the held-out ones; the corpus
holds both. The same seed gives the same bytes, and the same held-out countries in all three.
"""

import argparse
import random
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from geo_hop_world import ENTITY_RELATIONS, World, build_world, document, hold_out

from megatron_trace.data.tasks import write_shards

DRAWS_PER_TASK = 5_000
"""Chains that are drawn for each task before a set stays smaller. Most long chains are dead ends."""


@dataclass(frozen=True)
class TaskSets:
    """The sets of tasks of one folder.

    Attributes:
        train: name of a set to train on -> hops -> number of tasks.
        heldout: held-out tasks of each number of hops.
        strict: every hop counts: no answer is found by leaving out some of the relations. Its world
            has the relations `DIRECTIONS`.
    """

    train: dict[str, dict[int, int]]
    heldout: int
    strict: bool = False


SMALL = TaskSets({"train": {1: 1_200, 2: 1_800, 3: 2_000, 4: 1_500}}, heldout=128)

SHORT = TaskSets({"train": {1: 1_200, 2: 1_800}}, heldout=128)

TRIVIAL, BETWEEN, HOPELESS = range(1, 3), range(3, 7), range(7, 13)
"""Hops by what they are to a policy that has learnt from 1 to 6 hops."""

WIDE = TaskSets(
    {
        "broad": dict.fromkeys(TRIVIAL, 1_000)
        | dict.fromkeys(BETWEEN, 400)
        | dict.fromkeys(HOPELESS, 1_400),
        "recurring": dict.fromkeys(TRIVIAL, 17)
        | dict.fromkeys(BETWEEN, 7)
        | dict.fromkeys(HOPELESS, 24),
    },
    heldout=56,
    strict=True,
)


def draw_task(
    world: World,
    starts: list[str],
    allowed: set[str],
    hops: int,
    rng: random.Random,
    *,
    strict: bool,
) -> dict[str, Any] | None:
    """A random chain of `hops` relations through `allowed` titles, none twice; None at a dead end."""
    chain, relations = [rng.choice(starts)], []
    short: set[str] = set()
    for hop in range(hops):
        fields = world.get(chain[-1], {})
        choices = next_relations(fields, chain, allowed, last=hop == hops - 1)
        if strict:
            found = {relation: shortcuts(world, chain[-1], short, relation) for relation in choices}
            choices = [relation for relation in choices if fields[relation] not in found[relation]]
        if not choices:
            return None
        relations.append(rng.choice(choices))
        chain.append(fields[relations[-1]])
        if strict:
            short = found[relations[-1]]
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


def shortcuts(world: World, end: str, short: set[str], relation: str) -> set[str]:
    """Where a chain's relations and one more lead if some of them are left out.

    Args:
        end: where the chain ends.
        short: where its relations lead if some of them are left out.
    """
    followed = {world[title][relation] for title in short if relation in world.get(title, {})}
    return followed | short | {end}


def draw_tasks(
    world: World,
    allowed: set[str],
    hops: int,
    count: int,
    name: str,
    seed: int,
    *,
    strict: bool = False,
) -> list[dict[str, Any]]:
    """`count` different tasks (fewer where too few chains are found)."""
    # Its own generator for each set, so that changing one set leaves the others as they are.
    rng = random.Random(f"{seed}/{name}/{hops}")
    starts = sorted(allowed)
    by_question: dict[str, dict[str, Any]] = {}
    for _ in range(DRAWS_PER_TASK * count):
        if len(by_question) == count:
            break
        task = draw_task(world, starts, allowed, hops, rng, strict=strict)
        if task:
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


def build(out: Path, seed: int, wanted: TaskSets = SMALL) -> dict[str, int]:
    """Write all shards under `out`; returns the number of rows by file stem."""
    world, home = build_world(directions=wanted.strict)
    held = hold_out(world, home, random.Random(f"{seed}/split"))
    heldout = {title for title in world if home[title] in held}
    sets = {"corpus": corpus(world, heldout)}
    all_hops = sorted({hops for counts in wanted.train.values() for hops in counts})
    draw = partial(draw_tasks, world, seed=seed, strict=wanted.strict)
    for hops in all_hops:
        sets[f"heldout_{hops}"] = draw(heldout, hops, wanted.heldout, "heldout")
    # The tasks to train on come last: `make` takes them for a sign that all is there.
    for name, counts in wanted.train.items():
        sets[name] = []
        for hops, count in counts.items():
            sets[name] += draw(set(world) - heldout, hops, count, name)
    for name, rows in sets.items():
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
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument(
        "--wide", action="store_true", help="questions of 1 to 12 searches instead of 1 to 4"
    )
    sizes.add_argument(
        "--short", action="store_true", help="questions of 1 or 2 searches instead of 1 to 4"
    )
    args = parser.parse_args()
    wanted = WIDE if args.wide else SHORT if args.short else SMALL
    for name, count in build(args.out, args.seed, wanted).items():
        print(f"{name:12s} {count:6d} rows")


if __name__ == "__main__":
    main()
