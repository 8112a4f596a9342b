"""Make shards of the tasks of the Berkeley Function Calling Leaderboard, BFCL v4, to train on and
to hold out.

    python tools/build_bfcl.py --out data/bfcl

The tasks come with the package bfcl-eval. One family of tasks of 4 is held out, in one set for each
category. A family is what would tell the answers of one another: the same task in the four
multi-turn categories, or tasks with a question or a function in common. Which families are held out
follows from their ids, so the same package gives the same bytes.
"""

import argparse
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from megatron_trace.data.tasks import write_shards
from megatron_trace.envs.bfcl.package import NAME, VERSION, NotInstalled
from megatron_trace.envs.bfcl.tasks import CATEGORIES, docs_at_first, is_multi_turn, read_category
from megatron_trace.files.atomic import write_text

HELD_OUT_OF = 4
"""One family of this many is held out."""

Task = Mapping[str, Any]


def families(tasks: Sequence[Task]) -> dict[str, str]:
    """Id of a task -> the family's id: the first one, by text, of the ids in the family."""
    parents: dict[str, str] = {}

    def first(one: str) -> str:
        while parents.setdefault(one, one) != one:
            one = parents[one]
        return one

    for task in tasks:
        for mark in _marks(task):
            parents[first(mark)] = first(task["id"])
    members: dict[str, list[str]] = {}
    for task in tasks:
        members.setdefault(first(task["id"]), []).append(task["id"])
    return {id: min(ids) for ids in members.values() for id in ids}


def is_held_out(family: str) -> bool:
    """Whether a family is held out: by the SHA-256 of its id."""
    return int.from_bytes(hashlib.sha256(family.encode()).digest()) % HELD_OUT_OF == 0


def _marks(task: Task) -> Iterator[str]:
    """What a task has in common with the others of its family."""
    if is_multi_turn(task):
        # The same number is the same task, but for what is missing or added.
        number = re.sub(r".*_", "", task["id"])
        yield f"multi-turn task {number}"
        return
    yield "question " + json.dumps(task["question"], sort_keys=True).lower()
    for doc in docs_at_first(task):
        yield "function " + json.dumps(doc, sort_keys=True)


def build(out: Path) -> dict[str, dict[str, int]]:
    """Write all shards; returns category -> number of tasks to train on and held out.

    Raises:
        NotInstalled: the package bfcl-eval is missing.
    """
    by_category = {category: read_category(category) for category in CATEGORIES}
    family = families([task for read in by_category.values() for task in read])
    counts: dict[str, dict[str, int]] = {}
    for category, read in by_category.items():
        sets: dict[str, list[Task]] = {"train": [], "heldout": []}
        for task in read:
            sets["heldout" if is_held_out(family[task["id"]]) else "train"].append(task)
        for name, chosen in sets.items():
            write_shards(chosen, str(out / f"{name}_{category}-%06d.tar"))
        counts[category] = {name: len(chosen) for name, chosen in sets.items()}
    manifest = {"package": f"{NAME}=={VERSION}", "held_out_of": HELD_OUT_OF, "tasks": counts}
    write_text(out / "manifest.json", json.dumps(manifest, indent=1) + "\n")
    return counts


def main() -> None:
    """Build, and tell how many tasks there are."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("data/bfcl"), help="folder")
    args = parser.parse_args()
    try:
        counts = build(args.out)
    except NotInstalled as error:
        parser.error(str(error))
    for category, count in counts.items():
        print(f"{category:24} {count['train']:5} to train on {count['heldout']:5} held out")
    total = sum((Counter(count) for count in counts.values()), Counter[str]())
    print(f"{'all':24} {total['train']:5} to train on {total['heldout']:5} held out")


if __name__ == "__main__":
    main()
