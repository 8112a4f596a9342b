"""ARPO: half of the rollouts from the root, the rest where the entropy rose after a tool call.

Agentic reinforced policy optimization, arXiv 2507.19849. H_t is the entropy of the first tokens
after tool call t, H_0 that of the first tokens of the rollout, and ΔH_t = (H_t − H_0) / ln |V|. A
rollout branches at the call with probability P(clamp(u − β·ΔH_t, 0, 1) ≤ τ), u ~ U(0, 1), β = 0.2
and τ = 0.5; that is 0.5 + 0.2·ΔH_t between 0 and 1. A beam of b adds up to b − 1 branches at a
call.

Ours: a chain ends before it is branched. So its calls are drawn for from the shallowest on, each
once, until the group is full. The calls of the branches follow in the next round. What is then left
goes to the root, all at once.
"""

from dataclasses import dataclass

from megatron_trace.allocation.branching import Branching
from megatron_trace.allocation.planning_view import PlanningView, Plans
from megatron_trace.config import setting
from megatron_trace.tree import Anchor, Requires, RolloutTree


class ARPO(Branching):
    """Branches at tool calls by chance, more likely where the policy became less certain."""

    requires = frozenset({Requires.entropies})

    @dataclass
    class Options:
        """When a call is branched, and how its entropy is measured."""

        weight: float = setting(0.2, "β, weight of the rise of the entropy", at_least=0)
        threshold: float = setting(
            0.5, "τ, a branch is taken where the draw is at most this", at_least=0, below=1
        )
        beam: int = setting(
            2,
            "b, a call gets up to b - 1 branches",
            at_least=2,
            reason="a beam of 1 never branches",
        )
        tokens: int = setting(
            20, "first tokens of a turn over which its entropy is summed", at_least=1
        )
        log_vocabulary: float = setting(
            11.93, "ln |V|, in nats; the default is that of 151,936 tokens", above=0
        )

    def plan(self, view: PlanningView) -> Plans:
        # Indices mean other trees in every step.
        if view.round == 0:
            self._passed: dict[int, int] = {}
        return super().plan(view)

    def expand(self, view: PlanningView, index: int, share: int) -> dict[Anchor, int]:
        tree, passed = view.trees[index], self._passed.get(index, 0)
        self._passed[index] = len(tree.rollouts)
        # Every call is drawn for once, in the first plan after its rollout has ended. Drawing again
        # in each round would raise the probability of a branch above the paper's.
        anchors = tree.prefixes(of_continuations=True)
        calls = [anchor for anchor in anchors if tree.turns[anchor].rollout >= passed]
        branches: dict[Anchor, int] = {}
        left = share
        for anchor in sorted(calls, key=lambda anchor: len(tree.path(anchor))):
            drawn = view.rng.random(self.options.beam - 1)
            drawn = drawn - self.options.weight * self.rise(tree, anchor)
            wanted = int((drawn <= self.options.threshold).sum())
            count = min(wanted, left)
            if count:
                branches[anchor] = count
                left -= count
        return branches

    def rise(self, tree: RolloutTree, anchor: Anchor) -> float:
        """ΔH at `anchor`: entropy of the rollout's next turn, less that of its first turn."""
        rollout, tokens = tree.turns[anchor].rollout, self.options.tokens
        following = (turn for turn in tree.turns if turn.parent == anchor)
        after = next(turn for turn in following if turn.rollout == rollout)
        first = tree.turns[tree.path(anchor)[1]]
        rise = sum(after.entropies[:tokens]) - sum(first.entropies[:tokens])
        return rise / self.options.log_vocabulary
