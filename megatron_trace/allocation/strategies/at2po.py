"""AT²PO: chains, expanded in rounds at the nodes where the policy was least certain.

Agentic turn-based policy optimization via tree search, arXiv 2601.04767. The entropy of a node is
estimated by its turn's mean surprisal, H(n) = −(1/|y|) Σ log π(y_t). A round expands the K non-leaf
nodes of highest H(n) − α·(siblings of n), by one rollout each. The paper has 10 chains and 2 rounds
of 6 nodes, 22 rollouts, and α = 0.05.

Ours: the chains are `allocation.bare_share` of the group and the rounds share the rest, so every
task has `allocation.group` rollouts. Where a round has more rollouts than nodes, the best nodes get
a second one (as in the official code). The prompt, which has no turn, is not among the nodes.
"""

from collections import Counter
from dataclasses import dataclass
from itertools import cycle, islice

import numpy as np

from megatron_trace.allocation.branching import Branching
from megatron_trace.allocation.planning_view import PlanningView
from megatron_trace.config import setting
from megatron_trace.tree import Anchor, RolloutTree


class AT2PO(Branching):
    """Expands by surprisal, with a penalty on what has been branched already."""

    advantage = "at2po"

    @dataclass
    class Options:
        """The rounds of expansion."""

        rounds: int = setting(2, "rounds of expansion", at_least=1)
        nodes: int = setting(6, "K, most nodes of a tree that a round expands", at_least=1)
        penalty: float = setting(0.05, "α, nats subtracted for each sibling", at_least=0)

    def expand(self, view: PlanningView, index: int, share: int) -> dict[Anchor, int]:
        tree = view.trees[index]
        score = scores(tree, self.options.penalty)
        best = sorted(score, key=lambda anchor: (-score[anchor], anchor))[: self.options.nodes]
        # In a cycle, so that the best nodes get a second rollout where there are more than nodes.
        return dict(Counter(islice(cycle(best), min(share, self.per_round(self.options.rounds)))))


def scores(tree: RolloutTree, penalty: float) -> dict[Anchor, float]:
    """Anchor -> mean surprisal of its turn, in nats, less `penalty` for each sibling."""
    children = tree.children()
    return {
        anchor: -float(np.mean(turn.logprobs)) - penalty * (len(children[turn.parent]) - 1)
        for anchor in tree.prefixes(of_continuations=True)
        for turn in [tree.turns[anchor]]
    }
