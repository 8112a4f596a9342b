"""Trees on disk: one gzipped JSON-lines file per step."""

import dataclasses
import gzip
import json
import zlib
from collections.abc import Sequence
from pathlib import Path

from megatron_trace.files.atomic import whole_file
from megatron_trace.files.problems import BadData
from megatron_trace.tree.rollout_tree import Rollout, RolloutTree, Turn

FAULTS = (OSError, EOFError, zlib.error, ValueError, TypeError, KeyError, AttributeError)
"""What a file raises that holds no trees."""


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
    """Read what `save_trees` wrote.

    Raises:
        BadData: the file is cut or damaged, or holds something else.
    """
    trees: list[RolloutTree] = []
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                trees.append(_tree(json.loads(line)))
    except FAULTS as error:
        place = f"{path}: tree {len(trees) + 1}"
        raise BadData(f"{place} cannot be read ({type(error).__name__}: {error})") from None
    return trees


def _tree(row: dict) -> RolloutTree:
    turns = [Turn(**turn) for turn in row["turns"]]
    for turn in turns:
        # Policy and predictor would learn from it, and nothing would show.
        if not 0.0 <= turn.reward <= 1.0:
            raise ValueError(f"the reward {turn.reward} is not in [0, 1]")
    belief = row.get("belief")
    if belief is not None and not (len(belief) == 2 and min(belief) > 0):
        raise ValueError(f"the belief {belief} is not two numbers above 0")
    return RolloutTree(
        task=row["task"],
        turns=turns,
        rollouts=[Rollout(rollout["anchor"]) for rollout in row["rollouts"]],
        embedding=row.get("embedding"),
        belief=None if belief is None else (float(belief[0]), float(belief[1])),
    )
