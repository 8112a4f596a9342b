"""Trees on disk: one gzipped JSON-lines file per step."""

import dataclasses
import gzip
import json
import os
from collections.abc import Sequence
from pathlib import Path

from megatron_trace.tree.rollout_tree import Rollout, RolloutTree, Turn


def save_trees(path: Path, trees: Sequence[RolloutTree]) -> None:
    """Write `trees` to `path` (`.jsonl.gz`), one tree a line; the file appears only when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with gzip.open(partial, "wt", encoding="utf-8", compresslevel=3) as file:
        for tree in trees:
            file.write(json.dumps(dataclasses.asdict(tree)) + "\n")
    os.replace(partial, path)


def load_trees(path: Path) -> list[RolloutTree]:
    """Read what `save_trees` wrote."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [_tree(json.loads(line)) for line in file]


def _tree(row: dict) -> RolloutTree:
    return RolloutTree(
        task=row["task"],
        turns=[Turn(**turn) for turn in row["turns"]],
        rollouts=[Rollout(rollout["anchor"]) for rollout in row["rollouts"]],
        embedding=row.get("embedding"),
    )
