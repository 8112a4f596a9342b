"""What a step's trees say about training: the numbers that `metrics.jsonl` keeps."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from megatron_trace.tree import (
    ROOT,
    RolloutTree,
    by_histories,
    effective_ratio,
    mixed_probability,
    mixed_share,
)
from megatron_trace.tree.predictions import outcomes, scores

CALIBRATION_BINS = 10

Bin = tuple[float, float, int]
"""Mean prediction, mean success and number of the anchors whose predictions lie in one interval."""


def tree_metrics(trees: Sequence[RolloutTree]) -> dict[str, float]:
    """Numbers about one step's trees. What cannot be measured (no continuations, one class only)
    has no key.

    `success_rate` and `effective_ratio_bare` look at the bare rollouts alone. `turns_per_rollout`
    and the history lengths follow each rollout from the root; `tokens_per_rollout` is only what it
    sampled itself. `mixed_share` is the share of the rollouts that lie in mixed trees: the others
    hold no contrast. `continuation_flip_rate` is the share of continuations that ended otherwise than
    the rollout they branch from, and `predicted_flip_rate` is the share that the predictor
    expected. `repeated_histories` is the share of the turns with an observation whose history
    another rollout of the task had before. `reward/NAME` is a part of the reward, as the environment
    names it. The other metrics are those of `predictor_metrics`.
    """
    rollouts = sum(len(tree.rollouts) for tree in trees)
    if not rollouts:
        return {"active_tasks": float(len(trees)), "bare_rollouts": 0.0, "continuations": 0.0}
    # Success is that of the bare rollouts: continuations start where the predictor expects another
    # outcome, so their success says more about the choice of anchors than about the policy.
    bare = [reward for tree in trees for reward in bare_rewards(tree)]
    tokens = _sampled_tokens(trees)
    sampled = sum(tokens.values())
    history_lengths = _history_lengths(trees)
    metrics: dict[str, Any] = {
        "active_tasks": len(trees),
        "bare_rollouts": len(bare),
        "continuations": rollouts - len(bare),
        "effective_ratio": effective_ratio(trees),
        "effective_ratio_bare": np.mean([is_bare_mixed(tree) for tree in trees]),
        "mixed_share": mixed_share(trees),
        "repeated_histories": _repeated_histories(trees),
        "mixed_probability": np.mean([mixed_probability(tree) for tree in trees]),
        "turns_per_rollout": np.mean(_turn_counts(trees)),
        "tokens_per_rollout": sampled / rollouts,
        "history_tokens_mean": np.mean(history_lengths),
        "history_tokens_max": max(history_lengths),
        "malformed_share": np.mean([turn.malformed for tree in trees for turn in tree.turns[1:]]),
        "tool_errors": sum(turn.tool_errors for tree in trees for turn in tree.turns),
        "sampled_tokens": sampled,
        "sampled_tokens_bare": tokens["bare"],
        "sampled_tokens_continuations": tokens["continuation"],
    }
    if bare:
        metrics["success_rate"] = np.mean(bare)
    plain = {name: float(value) for name, value in metrics.items()}
    return plain | _parts(trees) | _flips(trees) | predictor_metrics(trees)


def bare_rewards(tree: RolloutTree) -> list[float]:
    """Terminal rewards of the bare rollouts, in the order in which they were sampled."""
    leaves = [tree.turns[leaf] for leaf in tree.leaves()]
    return [leaf.reward for leaf in leaves if tree.rollouts[leaf.rollout].stage == "bare"]


def is_bare_mixed(tree: RolloutTree) -> bool:
    """Whether the bare rollouts alone hold both a success and a failure."""
    return len(set(bare_rewards(tree))) > 1


def _parts(trees: Sequence[RolloutTree]) -> dict[str, float]:
    """`reward/NAME` -> mean over the rollouts of a part of the reward; 0 where a rollout lacks it."""
    leaves = [tree.turns[leaf] for tree in trees for leaf in tree.leaves()]
    names = sorted({name for leaf in leaves for name in leaf.parts})
    return {
        f"reward/{name}": float(np.mean([leaf.parts.get(name, 0.0) for leaf in leaves]))
        for name in names
    }


def _sampled_tokens(trees: Sequence[RolloutTree]) -> dict[str, int]:
    """Stage -> tokens that its rollouts sampled themselves."""
    tokens = {"bare": 0, "continuation": 0}
    for tree in trees:
        for turn in tree.turns[1:]:
            tokens[tree.rollouts[turn.rollout].stage] += len(turn.action_ids)
    return tokens


def _repeated_histories(trees: Sequence[RolloutTree]) -> float:
    inner = sum(_inner_turns(tree) for tree in trees)
    histories = sum(_inner_turns(by_histories(tree).tree) for tree in trees)
    return 1 - histories / inner if inner else 0.0


def _inner_turns(tree: RolloutTree) -> int:
    """Turns that do not end a rollout, without the root."""
    return sum(not turn.terminal for turn in tree.turns[1:])


def _turn_counts(trees: Sequence[RolloutTree]) -> list[int]:
    """Turns of each rollout from the root on."""
    return [len(tree.path(leaf)) - 1 for tree in trees for leaf in tree.leaves()]


def _history_lengths(trees: Sequence[RolloutTree]) -> list[int]:
    """Tokens of each rollout's history, prompt included."""
    return [len(tree.history_ids(leaf)) for tree in trees for leaf in tree.leaves()]


def _flips(trees: Sequence[RolloutTree]) -> dict[str, float]:
    """How many continuations ended otherwise than the rollout they branch from, and how many were
    expected to.
    """
    observed: list[float] = []
    predicted: list[float] = []
    for tree in trees:
        rewards = {tree.turns[leaf].rollout: tree.turns[leaf].reward for leaf in tree.leaves()}
        for number, rollout in enumerate(tree.rollouts):
            # What starts at the root continues no rollout: there is nothing that it could have
            # flipped.
            if rollout.stage != "continuation" or rollout.anchor == ROOT:
                continue
            anchor = tree.turns[rollout.anchor]
            outcome = rewards[anchor.rollout]
            observed.append(float(rewards[number] != outcome))
            if anchor.prediction is not None:
                v = anchor.prediction
                predicted.append(outcome * (1 - v) + (1 - outcome) * v)
    rates = {"continuation_flip_rate": observed, "predicted_flip_rate": predicted}
    return {name: float(np.mean(values)) for name, values in rates.items() if values}


def predictor_metrics(trees: Sequence[RolloutTree]) -> dict[str, float]:
    """How good the raw predictions of roots and of prefixes were: `predictor_<score>_<kind>`; see
    `scores`.
    """
    metrics: dict[str, float] = {}
    for kind in ("root", "prefix"):
        found = scores(outcomes(trees, roots=kind == "root"))
        metrics |= {f"predictor_{name}_{kind}": value for name, value in found.items()}
    return metrics


def calibration_bins(trees: Sequence[RolloutTree]) -> list[Bin]:
    """The anchors in each tenth of the predictions that has any, the lowest tenth first."""
    roots, prefixes = outcomes(trees, roots=True), outcomes(trees, roots=False)
    prediction = np.concatenate([roots.prediction, prefixes.prediction])
    success = np.concatenate([roots.success, prefixes.success])
    weight = np.concatenate([roots.weight, prefixes.weight])
    # A prediction of exactly 1 belongs to the last bin.
    place = np.minimum((prediction * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    bins = []
    for number in range(CALIBRATION_BINS):
        here = place == number
        if here.any():
            # Predictions count once each. Outcomes count by how many rollouts they are the mean of.
            mean_success = np.average(success[here], weights=weight[here])
            bins.append((float(prediction[here].mean()), float(mean_success), int(here.sum())))
    return bins
