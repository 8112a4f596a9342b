"""All turns of a step's trees as arrays, with where they are in the world."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from megatron_trace.simulate.trees import Ints
from megatron_trace.tree import ROOT, RolloutTree


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
    for number, tree in enumerate(trees):
        task, nodes = tree.task["index"], [0]
        rows.append((number, ROOT, task, 0, -1, -1, 0, False))
        for index, turn in enumerate(tree.turns[1:], start=1):
            # An action's first token names the action, so the node follows from the tree alone.
            above, action = nodes[turn.parent], turn.action_ids[0]
            node = actions * above + 1 + action
            nodes.append(node)
            tokens = len(turn.action_ids)
            rows.append((number, index, task, node, above, action, tokens, turn.terminal))
    columns = np.array(rows, dtype=np.int64).reshape(-1, 8).T
    return Turns(
        tree=columns[0],
        turn=columns[1],
        task=columns[2],
        node=columns[3],
        above=columns[4],
        action=columns[5],
        tokens=columns[6],
        terminal=columns[7].astype(bool),
    )
