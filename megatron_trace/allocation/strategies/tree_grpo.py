"""Tree-GRPO: chains, expanded at nodes drawn uniformly.

Tree search for LLM agent reinforcement learning, arXiv 2509.21240. M chains begin M trees of a
task. In each of L rounds N nodes n ~ U(T \\ leaves) of every tree T are drawn, with replacement,
and a rollout is sampled from each: M(1 + N·L) rollouts.

Ours: M is `allocation.bare_share` of the group, at least 2 (the norm over the task compares trees).
N is what the rest of the group leaves for each tree and round, so every task has `allocation.group`
rollouts. `nodes` sets a smaller N; the rounds then continue until the group is full. The official
code counts the prompt among the nodes of T. Here it does not count, as a rollout from the prompt
would be another tree.
"""

from collections import Counter
from dataclasses import dataclass

from megatron_trace.allocation.branching import Branching
from megatron_trace.allocation.planning_view import PlanningView
from megatron_trace.allocation.shares import split_evenly
from megatron_trace.config import setting
from megatron_trace.tree import ROOT, Anchor, RolloutTree


class TreeGRPO(Branching):
    """Random expansion, the same number in every tree that a chain began."""

    advantage = "tree_grpo"
    fewest = 2

    @dataclass
    class Options:
        """The paper's L and N."""

        rounds: int = setting(1, "L, rounds of expansion", at_least=1)
        nodes: int | None = setting(
            None,
            "N, nodes drawn of each tree in a round; null: what the group leaves",
            at_least=1,
        )

    def expand(self, view: PlanningView, index: int, share: int) -> dict[Anchor, int]:
        by_chain = list(nodes_by_chain(view.trees[index]).values())
        wanted = self.per_round(self.options.rounds)
        if self.options.nodes is not None:
            wanted = min(wanted, self.options.nodes * len(by_chain))
        # An even split gives its remainder to the first trees. So their order is random.
        order = view.rng.permutation(len(by_chain))
        drawn: Counter[Anchor] = Counter()
        for chain, count in zip(
            order, split_evenly(min(share, wanted), [share] * len(by_chain)), strict=True
        ):
            drawn.update(view.rng.choice(by_chain[chain], count).tolist())
        return dict(drawn)


def nodes_by_chain(tree: RolloutTree) -> dict[int, list[Anchor]]:
    """First turn of each chain -> the nodes of its tree; chains without a node are left out."""
    # Parents come before their children in `turns`, so one pass finds every turn's chain.
    chain = [0] * len(tree.turns)
    for index, turn in enumerate(tree.turns[1:], start=1):
        chain[index] = index if turn.parent == ROOT else chain[turn.parent]
    nodes: dict[int, list[Anchor]] = {}
    for anchor in tree.prefixes(of_continuations=True):
        nodes.setdefault(chain[anchor], []).append(anchor)
    return nodes
