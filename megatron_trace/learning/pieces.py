"""Trees cut into pieces that fit into a micro-batch, with as few tokens computed twice as can be."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from megatron_trace.learning.runs import Run


def size(piece: Iterable[Run]) -> int:
    """Tokens that are computed for a piece."""
    return sum(run.tokens for run in piece)


def cut(tree: Sequence[Run], limit: int) -> list[list[Run]]:
    """Cut a tree between rows into pieces of at most `limit` tokens.

    A piece begins with a whole row: what that row shares with the row before the cut is computed
    once more. The cuts are those that compute least, found by dynamic programming over the rows. A
    row that alone exceeds `limit` is a piece.
    """
    # least[j]: fewest tokens for the first j rows in pieces; from_row[j]: where their last begins.
    least, from_row = [0], [0]
    for end in range(1, len(tree) + 1):
        tokens = tree[end - 1].length
        best, begin = least[end - 1] + tokens, end - 1
        for first in range(end - 2, -1, -1):
            # The piece now begins one row earlier: with that whole row, and the next one's run.
            tokens += tree[first].length - tree[first + 1].shared
            if tokens > limit:
                break
            if least[first] + tokens <= best:
                best, begin = least[first] + tokens, first
        least.append(best)
        from_row.append(begin)
    pieces = []
    end = len(tree)
    while end:
        begin = from_row[end]
        pieces.append([replace(tree[begin], shared=0), *tree[begin + 1 : end]])
        end = begin
    return pieces[::-1]
