"""Metrics of a run: what its trees say, and `metrics.jsonl`, where every number is kept."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from megatron_trace.files.atomic import write_bytes
from megatron_trace.report.loggers import DetachedLogger, close_all
from megatron_trace.tree import ROOT, RolloutTree, effective_ratio, mixed_probability
from megatron_trace.tree.predictions import outcomes, scores

FILE = "metrics.jsonl"
CALIBRATION_BINS = 10

Bin = tuple[float, float, int]
"""Mean prediction, mean success and number of the anchors whose predictions lie in one interval."""

Row = dict[str, Any]
"""One line of `metrics.jsonl`: a step's numbers, or an evaluation where it has the key `evaluation`."""


def tree_metrics(trees: Sequence[RolloutTree]) -> dict[str, float]:
    """Numbers about one step's trees. What cannot be measured (no continuations, one class only) has no key.

    `success_rate` and `effective_ratio_bare` look at the bare rollouts alone. `turns_per_rollout` and the
    history lengths follow each rollout from the root; `tokens_per_rollout` is only what it sampled itself.
    `continuation_flip_rate` is the share of continuations that ended otherwise than the rollout they branch
    from, and `predicted_flip_rate` what the predictor expected of it. For the rest see `predictor_metrics`.
    """
    rollouts = [rollout for tree in trees for rollout in tree.rollouts]
    if not rollouts:
        return {"active_tasks": float(len(trees)), "bare_rollouts": 0.0, "continuations": 0.0}
    turns = [turn for tree in trees for turn in tree.turns[1:]]
    leaves = [(tree, leaf) for tree in trees for leaf in tree.leaves()]
    paths = [tree.path(leaf) for tree, leaf in leaves]
    lengths = [len(tree.history_ids(leaf)) for tree, leaf in leaves]
    bare = [reward for tree in trees for reward in bare_rewards(tree)]
    by_stage = {"bare": 0, "continuation": 0}
    for tree in trees:
        for turn in tree.turns[1:]:
            by_stage[tree.rollouts[turn.rollout].stage] += len(turn.action_ids)
    sampled = sum(by_stage.values())
    metrics = {
        "active_tasks": len(trees),
        "bare_rollouts": len(bare),
        "continuations": len(rollouts) - len(bare),
        "effective_ratio": effective_ratio(trees),
        "effective_ratio_bare": float(np.mean([is_bare_mixed(tree) for tree in trees])),
        "mixed_probability": float(np.mean([mixed_probability(tree) for tree in trees])),
        "turns_per_rollout": float(np.mean([len(path) - 1 for path in paths])),
        "tokens_per_rollout": sampled / len(rollouts),
        "history_tokens_mean": float(np.mean(lengths)),
        "history_tokens_max": max(lengths),
        "malformed_share": float(np.mean([turn.malformed for turn in turns])),
        "sampled_tokens": sampled,
        "sampled_tokens_bare": by_stage["bare"],
        "sampled_tokens_continuations": by_stage["continuation"],
    }
    if bare:
        metrics["success_rate"] = float(np.mean(bare))
    return (
        {name: float(value) for name, value in metrics.items()}
        | _flips(trees)
        | predictor_metrics(trees)
    )


def bare_rewards(tree: RolloutTree) -> list[float]:
    """Terminal rewards of the bare rollouts, in the order they were taken."""
    leaves = (tree.turns[leaf] for leaf in tree.leaves())
    return [leaf.reward for leaf in leaves if tree.rollouts[leaf.rollout].stage == "bare"]


def is_bare_mixed(tree: RolloutTree) -> bool:
    """Whether the bare rollouts alone hold both a success and a failure."""
    return len(set(bare_rewards(tree))) > 1


def _flips(trees: Sequence[RolloutTree]) -> dict[str, float]:
    observed, predicted = [], []
    for tree in trees:
        rewards = {tree.turns[leaf].rollout: tree.turns[leaf].reward for leaf in tree.leaves()}
        for number, rollout in enumerate(tree.rollouts):
            if rollout.stage == "continuation" and rollout.anchor != ROOT:
                anchor = tree.turns[rollout.anchor]
                outcome, v = rewards[anchor.rollout], anchor.prediction
                observed.append(float(rewards[number] != outcome))
                if v is not None:
                    predicted.append(outcome * (1 - v) + (1 - outcome) * v)
    rates = {"continuation_flip_rate": observed, "predicted_flip_rate": predicted}
    return {name: float(np.mean(values)) for name, values in rates.items() if values}


def predictor_metrics(trees: Sequence[RolloutTree]) -> dict[str, float]:
    """How good the raw predictions of roots and of prefixes were: `predictor_<score>_<kind>`; see `scores`."""
    found = {kind: scores(outcomes(trees, roots=kind == "root")) for kind in ("root", "prefix")}
    return {
        f"predictor_{name}_{kind}": value for kind in found for name, value in found[kind].items()
    }


def calibration_bins(trees: Sequence[RolloutTree]) -> list[Bin]:
    """(mean prediction, mean success, count) of the anchors in each tenth of the predictions that has any."""
    found = [outcomes(trees, roots=roots) for roots in (True, False)]
    prediction, success, weight = (
        np.concatenate([getattr(part, name) for part in found])
        for name in ("prediction", "success", "weight")
    )
    place = np.minimum((prediction * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    bins = [place == number for number in range(CALIBRATION_BINS) if np.any(place == number)]
    return [
        (
            float(prediction[b].mean()),
            float(np.average(success[b], weights=weight[b])),
            int(b.sum()),
        )
        for b in bins
    ]


class MetricsWriter:
    """Appends rows to `<run_dir>/metrics.jsonl`, and hands their numbers to the loggers.

    A killed process leaves at most one torn line, at the end; opening the file again removes it.
    """

    def __init__(
        self, run_dir: Path | str, *, done: int = 0, loggers: Sequence[DetachedLogger] = ()
    ) -> None:
        """Open the file, creating the folder where needed; earlier rows stay, those after step `done` do not."""
        run_dir = Path(run_dir)
        run_dir.mkdir(parents=True, exist_ok=True)
        _drop_rows(run_dir / FILE, done)
        self._file = (run_dir / FILE).open("a", encoding="utf-8")
        self._loggers = loggers

    def write(self, row: Mapping[str, Any]) -> None:
        """Append `row`, which has a `step`, as one line."""
        self._file.write(json.dumps(dict(row), default=float) + "\n")
        self._file.flush()
        numbers = dict(_numbers(row))
        for logger in self._loggers:
            logger.write(int(row["step"]), numbers)

    def close(self) -> None:
        """Close the file and the loggers."""
        self._file.close()
        close_all(self._loggers)

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def read_metrics(run_dir: Path | str) -> list[Row]:
    """All rows in order. A torn last line is left out. A run without metrics gives an empty list."""
    path = Path(run_dir) / FILE
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    return [json.loads(line) for line in lines if line.strip()]


def _drop_rows(path: Path, done: int) -> None:
    """Leave only whole rows of steps up to `done`: the steps after it are done anew."""
    if path.exists():
        lines = [line for line in path.read_bytes().split(b"\n")[:-1] if line.strip()]
        kept = [line for line in lines if json.loads(line)["step"] <= done]
        write_bytes(path, b"".join(line + b"\n" for line in kept))


def _numbers(row: Mapping[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    numbers = []
    for name, value in row.items():
        if isinstance(value, Mapping):
            numbers += _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float, np.number)) and name != "step":
            numbers.append((prefix + name, float(value)))
    return numbers
