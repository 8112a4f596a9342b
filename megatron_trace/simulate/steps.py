"""All turns of a step's trees as arrays, with where they are in the world."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from megatron_trace.tree import ROOT, RolloutTree

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Turns:
    """The turns of many trees, roots included, tree by tree; every array has shape [turns].

    Attributes:
        tree: index of the tree.
        turn: index in its `turns`.
        task, node: where the turn leads to.
        above: the node at which its action was taken; -1 for roots.
        action: what was done there; -1 for roots.
        tokens: sampled tokens; 0 for roots.
        terminal: the episode ended.
    """

    tree: Ints
    turn: Ints
    task: Ints
    node: Ints
    above: Ints
    action: Ints
    tokens: Ints
    terminal: NDArray[np.bool_]

    @property
    def sampled(self) -> NDArray[np.bool_]:
        """All but the roots."""
        return self.above >= 0


def turns_of(trees: Sequence[RolloutTree], actions: int) -> Turns:
    """The turns of `trees`, which a simulated sampler has grown.

    Args:
        actions: `WorldConfig.actions`.
    """
    rows: list[tuple[int, int, int, int, int, int, int, bool]] = []
    for which, tree in enumerate(trees):
        task, nodes = tree.task["index"], [0]
        rows.append((which, ROOT, task, 0, -1, -1, 0, False))
        for index, turn in enumerate(tree.turns[1:], start=1):
            above, action = nodes[turn.parent], turn.action_ids[0]
            nodes.append(actions * above + 1 + action)
            rows.append(
                (which, index, task, nodes[-1], above, action, len(turn.action_ids), turn.terminal)
            )
    columns = np.array(rows, dtype=np.int64).reshape(-1, 8).T
    tree_of, turn_of, tasks, reached, befores, taken, tokens, ends = columns
    return Turns(tree_of, turn_of, tasks, reached, befores, taken, tokens, ends.astype(bool))
