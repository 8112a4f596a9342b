"""Trees on disk: one gzipped JSON-lines file per step."""

import dataclasses
import gzip
import json
from collections.abc import Sequence
from pathlib import Path

from megatron_trace.files.atomic import whole_file
from megatron_trace.tree.rollout_tree import Rollout, RolloutTree, Turn


def save_trees(path: Path, trees: Sequence[RolloutTree]) -> None:
    """Write `trees` to `path` (`.jsonl.gz`), one tree a line; the file appears only when it is
    complete.
    """
    with (
        whole_file(path) as partial,
        gzip.open(partial, "wt", encoding="utf-8", compresslevel=3) as file,
    ):
        for tree in trees:
            file.write(json.dumps(dataclasses.asdict(tree)) + "\n")


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
