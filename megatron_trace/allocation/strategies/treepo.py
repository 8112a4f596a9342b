"""TreePO: a tree that fills level by level, every node with the same few children.

Bridging the gap of policy optimization and efficacy and inference efficiency with heuristic
tree-based modeling, arXiv 2508.17445. From the prompt two segments are sampled, from the end of
each two more, until the tree has the group's leaves: w children a node, so w^d leaves after d
levels.

Ours: a segment is a turn. A chain is sampled to its end before it is branched, so a node of w
children has its chain's own and w − 1 continuations. `width` chains begin at the root, whatever
`allocation.bare_share` is. The shallowest turns with fewer than `width` children come first; where
not all turns of a level can be paid, their order is random. Paths that ended early leave fewer
places. When none is left, the root gets `width` more chains, whose turns are places again.
"""

from dataclasses import dataclass

from megatron_trace.allocation.branching import Branching
from megatron_trace.allocation.planning_view import PlanningView
from megatron_trace.config import SettingError, setting
from megatron_trace.tree import ROOT, Anchor


class TreePO(Branching):
    """Binary branching at every turn, from the root down."""

    advantage = "treepo"

    @dataclass
    class Options:
        """The shape of the tree."""

        width: int = setting(
            2, "children of every node", at_least=2, reason="a node of one child does not branch"
        )

    @property
    def chains(self) -> int:
        return min(self.options.width, self.settings.group)

    def check(self) -> None:
        """
        Raises:
            SettingError: equal histories are merged, or the budget pays for no group.
        """
        super().check()
        # An equal draw is no new child there, so a turn would be drawn from again and again.
        if self.settings.merge:
            raise SettingError("allocation.merge", True, "must be false: treepo counts every draw")

    def expand(self, view: PlanningView, index: int, share: int) -> dict[Anchor, int]:
        tree = view.trees[index]
        children = tree.children()
        room = {
            a: self.options.width - len(children[a]) for a in tree.prefixes(of_continuations=True)
        }
        depth = {anchor: len(tree.path(anchor)) for anchor, places in room.items() if places > 0}
        if not depth:  # no turn has a place
            return {} if view.pending[index] else {ROOT: min(share, self.options.width)}
        # An anchor stands in the list once for every free place, so that places are drawn.
        level = [a for a in depth if depth[a] == min(depth.values()) for _ in range(room[a])]
        chosen = view.rng.permutation(level)[:share].tolist()
        return {int(anchor): chosen.count(anchor) for anchor in chosen}
