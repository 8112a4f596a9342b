"""Which of a run's many trees to show."""

import re
from dataclasses import dataclass
from pathlib import Path

from megatron_trace.report.metrics import is_bare_mixed
from megatron_trace.tree import RolloutTree, load_trees
from megatron_trace.tree.backup import is_mixed

NEARBY = 4
"""Steps to look into around the wanted one before a less telling tree is taken."""

COMFORTABLE_LEAVES = 9
"""Of equally telling trees the one nearest to this many rollouts is shown."""


@dataclass
class Exemplar:
    """A tree worth showing, the step it is from and what it shows."""

    step: int
    tree: RolloutTree
    why: str


_KINDS = (
    "The bare rollouts all ended alike; the continuations found the contrast.",
    "The bare rollouts were mixed already; the continuations sharpen where it was decided.",
    "Bare rollouts alone, with a success and a failure.",
    "Neither stage found a contrast: the policy learns nothing from this task.",
    "Bare rollouts alone, all alike: the policy learns nothing from this task.",
)
FOUND, SHARPENED, BARE_MIXED, MISSED, BARE_UNIFORM = _KINDS


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
    files = tree_files(run_dir)
    steps = list(files)
    if not steps:
        return []
    chosen: list[Exemplar] = []
    places = sorted({0, len(steps) // 2, len(steps) - 1})
    wanted = [(place, _KINDS[:3]) for place in places] + [(len(steps) // 2, _KINDS[3:])]
    for place, kinds in wanted:
        nearby = sorted(range(len(steps)), key=lambda n: abs(n - place))[: NEARBY + 1]
        exemplar = _best([(steps[n], files[steps[n]]) for n in nearby], kinds, chosen)
        if exemplar is not None:
            chosen.append(exemplar)
    return chosen


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
    files: list[tuple[int, Path]], kinds: tuple[str, ...], taken: list[Exemplar]
) -> Exemplar | None:
    """The most telling tree: by the order of `kinds`, then of `files`, then the most comfortable size."""
    best: tuple[int, Exemplar] | None = None
    for step, path in files:
        trees = [tree for tree in load_trees(path) if not _shown(step, tree, taken)]
        trees.sort(key=lambda tree: abs(len(tree.rollouts) - COMFORTABLE_LEAVES))
        for tree in trees:
            kind = kind_of(tree)
            if kind in kinds and (best is None or kinds.index(kind) < best[0]):
                best = kinds.index(kind), Exemplar(step, tree, kind)
        if best is not None and best[0] == 0:
            break
    return best[1] if best else None


def _shown(step: int, tree: RolloutTree, taken: list[Exemplar]) -> bool:
    return any(one.step == step and one.tree.task == tree.task for one in taken)
