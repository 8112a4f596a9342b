"""Context parallelism: which tokens a rank computes, and finding them again."""

import torch
from torch import Tensor


def own_tokens(total: int, rank: int, size: int) -> Tensor:
    """Indices of the tokens that context-parallel rank `rank` computes, int64 [total / size].

    A micro-batch is cut into 2·size chunks of equal length. A rank has the chunks `rank` and 2·size
    − 1 − `rank`: where a long row fills the micro-batch, one with short histories and one with long
    ones.

    Args:
        total: tokens of the micro-batch; with several ranks a multiple of 2·size.
    """
    if size == 1:
        return torch.arange(total)
    chunks = torch.arange(total).view(2 * size, -1)
    return torch.cat([chunks[rank], chunks[2 * size - 1 - rank]])


def local_index(tokens: Tensor, total: int) -> Tensor:
    """The index of each of `total` tokens within `tokens`, int64 [total]; −1: none."""
    index = torch.full((total,), -1, dtype=torch.int64, device=tokens.device)
    index[tokens] = torch.arange(len(tokens), device=tokens.device)
    return index


def gathered_order(total: int, size: int) -> Tensor:
    """For every token its index in the tokens of rank 0, rank 1, … one after another, int64
    [total].

    Gathering yields the ranks' tokens one after another; indexing the result with this restores the
    order.
    """
    together = torch.cat([own_tokens(total, rank, size) for rank in range(size)])
    return local_index(together, total)
