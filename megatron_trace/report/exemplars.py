"""Which of a run's many trees to show."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from megatron_trace.report.metrics import is_bare_mixed
from megatron_trace.tree import RolloutTree, load_trees
from megatron_trace.tree.backup import is_mixed

NEARBY = 4
"""Neighbouring steps that are searched as well before a less telling tree is taken."""

COMFORTABLE_LEAVES = 9
"""Among equally telling trees, the one whose number of rollouts is nearest to this is shown."""

NEWEST = 3
"""Trees of the newest step on the live page."""


@dataclass
class Exemplar:
    """A tree to show, the step that it is from, and what it shows."""

    step: int
    tree: RolloutTree
    why: str


_KINDS = (
    "The bare rollouts all ended alike; the continuations found the contrast.",
    "The bare rollouts were mixed already; the continuations sharpen where it was decided.",
    "Bare rollouts alone, with a success and a failure.",
    "Neither stage found a contrast: inside this tree there is nothing to compare.",
    "Bare rollouts alone, all alike: inside this tree there is nothing to compare.",
)
FOUND, SHARPENED, BARE_MIXED, MISSED, BARE_UNIFORM = _KINDS
_WITH_CONTRAST, _WITHOUT_CONTRAST = _KINDS[:3], _KINDS[3:]

StepFile = tuple[int, Path]
"""A step, and the file of its trees."""


def tree_files(run_dir: Path | str) -> dict[int, Path]:
    """The files of a run's trees by step, in order."""
    found = {}
    for path in (Path(run_dir) / "trees").glob("step_*.jsonl.gz"):
        number = re.fullmatch(r"step_(\d+)\.jsonl\.gz", path.name)
        if number:
            found[int(number[1])] = path
    return dict(sorted(found.items()))


def choose_exemplars(run_dir: Path | str) -> list[Exemplar]:
    """At most four trees: an early, a middle and a late one with contrast, and one without.

    Preferred are trees where stage 2 found what the bare rollouts had not; without any, mixed ones.
    """
    files = list(tree_files(run_dir).items())
    if not files:
        return []
    middle, last = len(files) // 2, len(files) - 1
    # A short run has fewer than three different places.
    wanted: list[tuple[int, Sequence[str]]] = []
    for place in sorted({0, middle, last}):
        wanted.append((place, _WITH_CONTRAST))
    wanted.append((middle, _WITHOUT_CONTRAST))
    chosen: list[Exemplar] = []
    for place, kinds in wanted:
        exemplar = _best(_nearest(files, place), kinds, chosen)
        if exemplar is not None:
            chosen.append(exemplar)
    return chosen


def newest_exemplars(run_dir: Path | str) -> list[Exemplar]:
    """At most `NEWEST` trees of the newest step that has any, the most telling ones first."""
    files = list(tree_files(run_dir).items())[-1:]
    chosen: list[Exemplar] = []
    while len(chosen) < NEWEST and (exemplar := _best(files, _KINDS, chosen)):
        chosen.append(exemplar)
    return chosen


def _nearest(files: Sequence[StepFile], place: int) -> list[StepFile]:
    """The file at `place` and its nearest neighbours, the nearest first."""
    order = sorted(range(len(files)), key=lambda n: abs(n - place))
    return [files[n] for n in order[: NEARBY + 1]]


def kind_of(tree: RolloutTree) -> str | None:
    """What `tree` shows, as a sentence; None for a tree without rollouts."""
    if not tree.rollouts:
        return None
    if not any(rollout.stage == "continuation" for rollout in tree.rollouts):
        return BARE_MIXED if is_mixed(tree) else BARE_UNIFORM
    if not is_mixed(tree):
        return MISSED
    return SHARPENED if is_bare_mixed(tree) else FOUND


def _best(
    files: Sequence[StepFile], kinds: Sequence[str], taken: Sequence[Exemplar]
) -> Exemplar | None:
    """The most telling tree: by the order of `kinds`, then of `files`, then the most comfortable
    size.
    """
    best: Exemplar | None = None
    best_rank = len(kinds)
    for step, path in files:
        trees = [tree for tree in load_trees(path) if not _shown(step, tree, taken)]
        trees.sort(key=lambda tree: abs(len(tree.rollouts) - COMFORTABLE_LEAVES))
        for tree in trees:
            kind = kind_of(tree)
            if kind is not None and kind in kinds and kinds.index(kind) < best_rank:
                best = Exemplar(step, tree, kind)
                best_rank = kinds.index(kind)
        # No later file can be better, and reading all trees of a step takes a while.
        if best_rank == 0:
            break
    return best


def _shown(step: int, tree: RolloutTree, taken: Sequence[Exemplar]) -> bool:
    return any(one.step == step and one.tree.task == tree.task for one in taken)
