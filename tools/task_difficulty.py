"""How hard a run's tasks were for its policy: success, and tasks that never, always or sometimes
succeeded, by a field of the task.

    python tools/task_difficulty.py runs/trace --by hops
    python tools/task_difficulty.py runs/trace --by hops --last 10

A task counts once for each of its trees. What never or always succeeds teaches nothing.
"""

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from megatron_trace.report.exemplars import tree_files
from megatron_trace.tree import RolloutTree, load_trees

ALL = "all"

Rewards = list[list[float]]
"""The rewards of each tree's rollouts."""


def rewards_by(trees: Sequence[RolloutTree], field: str) -> dict[str, Rewards]:
    """The trees' rewards by the value of `field` in their task, and of all trees under `ALL`."""
    by_value: dict[str, Rewards] = defaultdict(list)
    for tree in sorted(trees, key=lambda tree: tree.task[field]):
        rewards = [tree.turns[leaf].reward for leaf in tree.leaves()]
        if rewards:
            by_value[str(tree.task[field])].append(rewards)
            by_value[ALL].append(rewards)
    # All trees last, as a sum stands below its terms.
    by_value[ALL] = by_value.pop(ALL, [])
    return dict(by_value)


def shares(rewards: Rewards) -> tuple[float, float, float, float]:
    """Mean success of the trees, and the shares of trees that never, always and sometimes succeeded."""
    low = np.array([min(tree) for tree in rewards])
    high = np.array([max(tree) for tree in rewards])
    success = np.mean([np.mean(tree) for tree in rewards])
    never, always = np.mean(high == 0), np.mean(low == 1)
    return float(success), float(never), float(always), float(np.mean(low < high))


def table_of(by_value: Mapping[str, Rewards], field: str) -> Table:
    """One row for each value of `field`."""
    table = Table(field, "trees", "success", "never", "always", "mixed")
    for value, rewards in by_value.items():
        if rewards:
            numbers = [f"{share:.3f}" for share in shares(rewards)]
            table.add_row(value, str(len(rewards)), *numbers)
    return table


def main() -> None:
    """Read the run's trees and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of the run, with trees")
    parser.add_argument("--by", required=True, help="field of the tasks, such as hops")
    parser.add_argument("--last", type=int, help="only this many last steps")
    args = parser.parse_args()
    files = list(tree_files(args.run).values())
    if not files:
        parser.error(f"{args.run} holds no trees")
    if args.last:
        files = files[-args.last :]
    trees = [tree for file in files for tree in load_trees(file)]
    if any(args.by not in tree.task for tree in trees):
        fields = ", ".join(sorted(trees[0].task))
        parser.error(f"--by {args.by}: not every task has this field; the first has {fields}")
    Console().print(table_of(rewards_by(trees, args.by), args.by))


if __name__ == "__main__":
    main()
