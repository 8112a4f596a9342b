"""Build Countdown: numbers and targets from easy to hard for random play, as shards.

    python tools/build_countdown.py --out data/countdown --seed 0

For each number of numbers, such as 4: `train_4-*.tar` and `heldout_4-*.tar`. A draw of numbers
belongs, with all its targets, either to the training tasks or to the held-out ones.

How hard a task is is told by its `random_value`, the probability that random play reaches the
target. Each set has the same number of tasks in each of these levels, where there are enough:
easy (10 % and more), medium (2 % to 10 %), hard (0.4 % to 2 %), very hard (less, but not 0).
The same seed gives the same bytes.
"""

import argparse
import hashlib
import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import Any

from megatron_trace.data.tasks import write_shards
from megatron_trace.envs.builtin.countdown import FEWEST, MOST
from megatron_trace.envs.countdown_rules import all_values

LEVELS = {"easy": (0.1, inf), "medium": (0.02, 0.1), "hard": (0.004, 0.02), "very hard": (0, 0.004)}
"""Level -> the lowest random value, and the first that is too high."""

HELDOUT_SHARE = 0.2
"""Of all draws of numbers."""

TARGETS_PER_LEVEL = 1
"""At most this number of targets of each level for the same numbers: different numbers tell more."""

DRAWS_PER_TASK = 20
"""Draws of numbers for each task that is wanted, before a set stays smaller."""

Task = dict[str, Any]


def level_of(value: float) -> str:
    """The level of a task that can be solved."""
    return next(name for name, (low, high) in LEVELS.items() if low <= value < high)


def is_heldout(numbers: tuple[int, ...], seed: int) -> bool:
    """Whether tasks with these numbers are held out."""
    # By a hash and not by the order of draws: a set that grows or shrinks moves no task.
    digest = hashlib.sha256(json.dumps([seed, numbers]).encode()).digest()
    return int.from_bytes(digest[:8], "big") < HELDOUT_SHARE * 2**64


def draws(count: int, largest: int, rng: random.Random) -> Iterator[tuple[int, ...]]:
    """Different draws of `count` numbers, each ascending; endless but for repetitions."""
    seen = set()
    while True:
        numbers = tuple(sorted(rng.randint(1, largest) for _ in range(count)))
        yield () if numbers in seen else numbers
        seen.add(numbers)


def targets_of(
    numbers: tuple[int, ...], lowest: int, highest: int, rng: random.Random
) -> dict[int, float]:
    """A few targets of each level with their random values."""
    by_level: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for target, value in sorted(all_values(numbers, highest).items()):
        if target >= lowest and target not in numbers:
            by_level[level_of(value)].append((target, value))
    chosen: dict[int, float] = {}
    for found in by_level.values():
        chosen |= rng.sample(found, min(len(found), TARGETS_PER_LEVEL))
    return chosen


def build_set(name: str, count: int, wanted: int, args: argparse.Namespace) -> list[Task]:
    """Tasks of `count` numbers, `wanted` in all (fewer where too few are found).

    Args:
        name: `train` or `heldout`.
    """
    # Its own generator for each set, so that changing one set leaves the others as they are.
    rng = random.Random(f"{args.seed}/{name}/{count}")
    per_level = -(-wanted // len(LEVELS))
    levels: Counter[str] = Counter()
    tasks: list[Task] = []
    stream = draws(count, args.largest, rng)
    for _ in range(DRAWS_PER_TASK * wanted):
        if len(tasks) == wanted:
            break
        numbers = next(stream)
        if not numbers or is_heldout(numbers, args.seed) != (name == "heldout"):
            continue
        targets = targets_of(numbers, args.lowest_target, args.highest_target, rng)
        for target, value in targets.items():
            if levels[level_of(value)] < per_level and len(tasks) < wanted:
                levels[level_of(value)] += 1
                id = f"countdown/{name}/{count}/{len(tasks):05d}"
                tasks.append(
                    {"id": id, "numbers": list(numbers), "target": target, "random_value": value}
                )
    return tasks


def build(args: argparse.Namespace) -> None:
    """Write all shards, and say how many tasks of each level there are."""
    for count in args.numbers:
        for name, wanted in (("heldout", args.heldout), ("train", args.train)):
            tasks = build_set(name, count, wanted, args)
            write_shards(tasks, str(args.out / f"{name}_{count}-%06d.tar"))
            levels = Counter(level_of(task["random_value"]) for task in tasks)
            shares = ", ".join(f"{levels[level]} {level}" for level in LEVELS)
            print(f"{name}_{count}: {len(tasks)} tasks: {shares}")


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("data/countdown"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--numbers", type=int, nargs="+", default=list(range(FEWEST, MOST + 1)))
    parser.add_argument("--largest", type=int, default=20, help="the numbers are from 1 to this")
    parser.add_argument("--lowest-target", type=int, default=10)
    parser.add_argument("--highest-target", type=int, default=100)
    parser.add_argument("--train", type=int, default=2_000, help="tasks to train on, of each size")
    parser.add_argument("--heldout", type=int, default=128, help="held-out tasks of each size")
    args = parser.parse_args(argv)
    if wrong := [count for count in args.numbers if not FEWEST <= count <= MOST]:
        parser.error(f"--numbers {wrong[0]}: must be from {FEWEST} to {MOST}")
    for name in ("largest", "lowest_target", "train", "heldout"):
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} {getattr(args, name)}: must be at least 1")
    if args.highest_target < args.lowest_target:
        parser.error(f"--highest-target {args.highest_target}: is below --lowest-target")
    return args


if __name__ == "__main__":
    build(parse())
