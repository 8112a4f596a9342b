"""Context parallelism: which tokens a rank computes, and finding them again."""

from itertools import pairwise

import torch
from torch import Tensor


def own_tokens(starts: Tensor, rank: int, size: int) -> Tensor:
    """Indices of the tokens that context-parallel rank `rank` computes, int64 [s / size].

    Every row is cut into 2·size chunks of equal length. A rank has the chunks `rank` and `2·size −
    1 − rank`: one with short histories and one with long ones, so that all ranks have the same
    work. Transformer Engine cuts packed sequences in the same way (`thd_get_partitioned_indices`).

    Args:
        starts: where each row begins and the last one ends, int [b + 1]. With several ranks,
            lengths are multiples of 2·size.
    """
    if size == 1:
        return torch.arange(int(starts[-1]), device=starts.device)
    parts = []
    for start, end in pairwise(starts.tolist()):
        chunk = (end - start) // (2 * size)
        for number in (rank, 2 * size - 1 - rank):
            parts.append(torch.arange(start + number * chunk, start + (number + 1) * chunk))
    return torch.cat(parts).to(starts.device)


def local_index(tokens: Tensor, total: int) -> Tensor:
    """The index of each of `total` tokens within `tokens`, int64 [total]; −1: none."""
    index = torch.full((total,), -1, dtype=torch.int64, device=tokens.device)
    index[tokens] = torch.arange(len(tokens), device=tokens.device)
    return index


def gathered_order(starts: Tensor, size: int) -> Tensor:
    """For every token its index in the tokens of rank 0, rank 1, … one after another, int64 [s].

    Gathering yields the ranks' tokens one after another; indexing the result with this restores the
    order.
    """
    together = torch.cat([own_tokens(starts, rank, size) for rank in range(size)])
    return local_index(together, len(together))
