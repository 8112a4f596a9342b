"""What is true of sampled trees: values, advantages and chances of contrast, and how far estimates are from them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from megatron_trace.allocation.value import prefix_value, root_value, same_outcome
from megatron_trace.simulate.policy import SimulatedPolicy
from megatron_trace.simulate.steps import Turns
from megatron_trace.simulate.trees import Floats
from megatron_trace.tree import ROOT, RolloutTree

BINS = 10
"""Of true success probability, in each of which a backup's bias is taken."""


def true_values(policy: SimulatedPolicy, turns: Turns) -> Floats:
    """V of every turn's history, [turns]; the reward at terminal turns."""
    return policy.value[turns.task, turns.node]


def true_advantages(policy: SimulatedPolicy, turns: Turns) -> Floats:
    """A*(turn) = V(after it) − V(before it), [turns]; 0 for roots."""
    before = policy.value[turns.task, np.maximum(turns.above, 0)]
    return np.where(turns.sampled, true_values(policy, turns) - before, 0.0)


def mixed_by_roots(policy: SimulatedPolicy, trees: Sequence[RolloutTree]) -> Floats:
    """Probability, before any rollout, that each tree's m bare rollouts are mixed: 1 − v^m − (1−v)^m, [trees].

    Exact for strategies that plan all bare rollouts at once; of others m may follow from how the first ones ended.
    """
    v = np.array([policy.value[tree.task["index"], 0] for tree in trees])
    return root_value(
        v, [sum(rollout.stage == "bare" for rollout in tree.rollouts) for tree in trees]
    )


def mixed_by_plan(policy: SimulatedPolicy, trees: Sequence[RolloutTree], turns: Turns) -> Floats:
    """Probability, once its bare rollouts have ended, that each tree becomes mixed, [trees].

    1 where they are mixed already, else 1 − Π q^k over the anchors that got k continuations, q = the true probability
    that a continuation ends as the bare rollouts did. Exact for strategies that plan all continuations at once; of
    others it counts those at bare rollouts' prefixes only, as if they had been planned together.
    """
    value = true_values(policy, turns)
    first = np.flatnonzero(turns.turn == ROOT)
    mixed = np.zeros(len(trees))
    for number, tree in enumerate(trees):
        bare = {n for n, rollout in enumerate(tree.rollouts) if rollout.stage == "bare"}
        rewards = [
            tree.turns[leaf].reward for leaf in tree.leaves() if tree.turns[leaf].rollout in bare
        ]
        if min(rewards) < max(rewards):
            mixed[number] = 1.0
            continue
        anchors = [r.anchor for n, r in enumerate(tree.rollouts) if n not in bare]
        of_bare = [a for a in anchors if tree.turns[a].rollout in bare]
        repeats = same_outcome(value[first[number] + np.array(of_bare, dtype=int)], rewards[0])
        mixed[number] = prefix_value(np.prod(repeats), 1)
    return mixed


def estimator_error(
    estimate: Floats, truth: Floats, unit: NDArray[np.int64], group: NDArray[np.int64]
) -> dict[str, float]:
    """How an advantage estimator errs, in units of the true advantages' root mean square.

    Estimators are normalised in different ways, and a common factor means no more than another learning rate: the one
    that fits best, c = Σ ÂA* / ΣA*², is divided out. Then E (Â/c − A*)² = bias² + variance, both within groups of
    equal turns: the same action at the same history.

    Args:
        estimate, truth: Â and A*, [n].
        unit: tree of each; estimates of a group in one tree depend on each other and count as their mean.
        group: which turn of the world it is.

    Returns:
        `scale` c, `cosine` of Â and A* as vectors, and of the groups of two trees or more, if there are any, `bias`
        and `deviation` (root mean squares); only a `scale` of 0 where Â or A* is 0 everywhere. Bias and deviation
        know nothing of turns seen in one tree only: their c and their unit are those of the turns seen in more.
    """
    keys, place = np.unique(np.stack([group, unit]), axis=1, return_inverse=True)
    count = np.bincount(place)
    a_hat, a = np.bincount(place, estimate) / count, np.bincount(place, truth) / count
    squares = float(a @ a)
    if squares == 0.0 or not a_hat.any():
        return {"scale": 0.0}
    cosine = float(a_hat @ a / np.sqrt((a_hat @ a_hat) * squares))
    found = {"scale": float(a_hat @ a) / squares, "cosine": cosine}
    _, place, trees = np.unique(keys[0], return_inverse=True, return_counts=True)
    again = trees[place] > 1
    a_hat, a = a_hat[again], a[again]
    squares, product = float(a @ a), float(a_hat @ a)
    if squares == 0.0 or product == 0.0:
        return found
    size, scale = squares / len(a), product / squares
    _, place, trees = np.unique(place[again], return_inverse=True, return_counts=True)
    mean = np.bincount(place, a_hat) / trees
    scatter = np.bincount(place, (a_hat - mean[place]) ** 2)
    weight, variance = trees / trees.sum(), scatter / (trees - 1) / scale**2
    error = mean / scale - np.bincount(place, a) / trees
    bias = float(weight @ (error**2 - variance / trees))
    return found | {
        "bias": float(np.sqrt(max(bias, 0.0) / size)),
        "deviation": float(np.sqrt(weight @ variance / size)),
    }


def backup_error(estimate: Floats, truth: Floats, unit: NDArray[np.int64]) -> dict[str, float]:
    """How backed-up success rates err as targets of the predictor.

    Args:
        estimate, truth: of each anchor, [n].
        unit: tree of each; errors of one tree depend on each other.

    Returns:
        `slope` of the estimate against the true value (1 where unbiased), `bias` (root mean square over tenths of the
        true value, freed of the means' own noise; of tenths with two trees or more, if there are any) and `rmse`;
        nothing for fewer than two anchors.
    """
    if len(truth) < 2 or truth.std() == 0:
        return {}
    error, tenth = estimate - truth, np.minimum((truth * BINS).astype(int), BINS - 1)
    found = {
        "slope": float(np.polyfit(truth, estimate, 1)[0]),
        "rmse": float(np.sqrt((error**2).mean())),
    }
    count = np.bincount(tenth, minlength=BINS)
    mean = np.bincount(tenth, error, BINS) / np.maximum(count, 1)
    keys, place = np.unique(np.stack([tenth, unit]), axis=1, return_inverse=True)
    scatter = np.bincount(keys[0], np.bincount(place, error - mean[tenth]) ** 2, BINS)
    trees = np.bincount(keys[0], minlength=BINS)
    seen = trees > 1
    if not seen.any():
        return found
    count, trees = count[seen], trees[seen]
    noise = scatter[seen] / count**2 * trees / (trees - 1)
    bias = float(count @ (mean[seen] ** 2 - noise) / count.sum())
    return found | {"bias": float(np.sqrt(max(bias, 0.0)))}
