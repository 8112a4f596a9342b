"""What is true of sampled trees: values, advantages and chances of mixed outcomes."""

from collections.abc import Sequence

import numpy as np

from megatron_trace.allocation.value import prefix_value, root_value, same_outcome
from megatron_trace.simulate.policy import SimulatedPolicy
from megatron_trace.simulate.steps import Turns
from megatron_trace.simulate.trees import Floats
from megatron_trace.tree import ROOT, RolloutTree


def true_values(policy: SimulatedPolicy, turns: Turns) -> Floats:
    """V of every turn's history, [turns]; the reward at terminal turns."""
    return policy.value[turns.task, turns.node]


def true_advantages(policy: SimulatedPolicy, turns: Turns) -> Floats:
    """A*(turn) = V(after it) − V(before it), [turns]; 0 for roots."""
    # Roots have no history before them (above is −1). Any index does, as they are masked below.
    before = policy.value[turns.task, np.maximum(turns.above, 0)]
    return np.where(turns.sampled, true_values(policy, turns) - before, 0.0)


def mixed_by_roots(policy: SimulatedPolicy, trees: Sequence[RolloutTree]) -> Floats:
    """Probability that each tree's m bare rollouts are mixed: 1 − v^m − (1−v)^m, [trees].

    Exact for strategies that plan all bare rollouts at once. In others m may depend on how the
    first rollouts ended.
    """
    success = [policy.value[tree.task["index"], 0] for tree in trees]
    bare = [sum(rollout.stage == "bare" for rollout in tree.rollouts) for tree in trees]
    return root_value(np.array(success), bare)


def mixed_by_plan(policy: SimulatedPolicy, trees: Sequence[RolloutTree], turns: Turns) -> Floats:
    """Probability, once its bare rollouts have ended, that each tree becomes mixed, [trees].

    1 where the bare rollouts are mixed, else 1 − Π q^k over the anchors that got k continuations; q
    is the true probability that a continuation ends as the bare rollouts did. Exact for strategies
    that plan all continuations at once. In others only continuations of bare rollouts' prefixes
    count, as if they had been planned together.
    """
    value = true_values(policy, turns)
    first_turns = np.flatnonzero(turns.turn == ROOT)
    mixed = np.zeros(len(trees))
    for number, (tree, first) in enumerate(zip(trees, first_turns, strict=True)):
        bare = {n for n, rollout in enumerate(tree.rollouts) if rollout.stage == "bare"}
        leaves = [tree.turns[leaf] for leaf in tree.leaves()]
        rewards = [leaf.reward for leaf in leaves if leaf.rollout in bare]
        if min(rewards) < max(rewards):
            mixed[number] = 1.0
            continue
        # All bare rollouts ended alike. One continuation that ends otherwise is enough, and they
        # are independent: the probability that none does is the product of their q.
        anchors = [r.anchor for n, r in enumerate(tree.rollouts) if n not in bare]
        of_bare = [anchor for anchor in anchors if tree.turns[anchor].rollout in bare]
        repeats = same_outcome(value[first + np.array(of_bare, dtype=int)], rewards[0])
        mixed[number] = prefix_value(np.prod(repeats), 1)
    return mixed
