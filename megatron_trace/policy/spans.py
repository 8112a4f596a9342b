"""Which keys the queries of a train rank see in a packed micro-batch: spans of queries and paths of
keys.

Without context parallelism a run is a *span*: its queries are consecutive, and see its row's path,
causally, with the last query at the path's end. A rank of a context-parallel group has two chunks
of the micro-batch. There a span is what of a run lies in a chunk, and its keys are the path up to
the span's end.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate, pairwise

import numpy as np
import torch
from torch import Tensor

from megatron_trace.learning.runs import paths
from megatron_trace.policy.context import gathered_order, own_tokens


@dataclass(frozen=True)
class Spans:
    """The spans of one rank, k of them, in the order of its tokens.

    Attributes:
        queries: tokens of each span, [k].
        keys: tokens of the path that each span sees, [k]; the span's tokens are its last ones.
        path: index of each key among the keys of all ranks one after another, span after span,
            int64 [sum of `keys`]; None where each span sees its own tokens alone, in order.
        device: where `path` is.
    """

    queries: tuple[int, ...]
    keys: tuple[int, ...]
    path: Tensor | None
    device: torch.device

    @cached_property
    def query_bounds(self) -> Tensor:
        """Where each span begins and the last one ends, int32 [k + 1]."""
        return _bounds(self.queries, self.device)

    @cached_property
    def key_bounds(self) -> Tensor:
        """The same of the gathered keys."""
        return _bounds(self.keys, self.device)


def _bounds(lengths: Sequence[int], device: torch.device) -> Tensor:
    return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)


def described(starts: list[int], shared: list[int]) -> Tensor:
    """A micro-batch's runs as a tensor on the host, int64 [2, b + 1], which `spans_of` reads.

    Megatron hands a layer's attention nothing but tensors through recomputation and the pipeline.
    """
    return torch.tensor([starts, [*shared, 0]])


def spans_of(runs: Tensor, rank: int, size: int, device: torch.device) -> Spans:
    """The spans of context-parallel rank `rank` of `size` in the micro-batch that `runs` describes.

    They are the same in all layers, which therefore share them.
    """
    starts, shared = runs.tolist()
    return _spans(tuple(starts), tuple(shared[:-1]), rank, size, device)


@lru_cache(maxsize=64)
def _spans(
    starts: tuple[int, ...], shared: tuple[int, ...], rank: int, size: int, device: torch.device
) -> Spans:
    of_rows = paths(starts, shared)
    queries, keys = [], []
    seen = [np.zeros(0, dtype=np.int64)]
    for begin, end in _chunks(starts[-1], rank, size):
        for (start, stop), depth, path in zip(pairwise(starts), shared, of_rows, strict=True):
            first, last = max(begin, start), min(end, stop)
            if first < last:
                queries.append(last - first)
                keys.append(depth + last - start)
                seen.append(path[: keys[-1]])
    if queries == keys and size == 1:
        return Spans(tuple(queries), tuple(keys), None, device)
    path = gathered_order(starts[-1], size)[np.concatenate(seen)]
    return Spans(tuple(queries), tuple(keys), path.to(device), device)


def _chunks(total: int, rank: int, size: int) -> list[tuple[int, int]]:
    """Begin and end of each range of consecutive tokens that the rank has."""
    if size == 1:
        return [(0, total)]
    first, second = own_tokens(total, rank, size).view(2, -1)
    return [(int(chunk[0]), int(chunk[-1]) + 1) for chunk in (first, second)]
