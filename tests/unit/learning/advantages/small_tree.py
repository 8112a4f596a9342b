"""A tree small enough to compute advantages of it by hand."""

from megatron_trace.tree import ROOT, RolloutTree
from tests.unit.trees import chain, empty_tree


def small_tree() -> RolloutTree:
    """Turns 1, 2, 3 end with 1; 4, 5 with 0; two continuations of turn 1 are 6, 7 with 0, and 8
    with 1.
    """
    tree = empty_tree(prediction=0.3)
    tree.graft(ROOT, chain(100, 3, 1.0))
    tree.graft(ROOT, chain(200, 2, 0.0))
    tree.graft(1, chain(500, 2, 0.0))
    tree.graft(1, chain(600, 1, 1.0))
    return tree
