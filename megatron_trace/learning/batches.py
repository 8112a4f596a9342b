"""A packed micro-batch: rows end to end in one sequence, with what is learned from them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from megatron_trace.learning.packing import Packing
from megatron_trace.learning.rows import Row
from megatron_trace.learning.tokens import TokenData

Arrays = Sequence[NDArray[np.float32]]
Held = TypeVar("Held", "Batch", TokenData)


@dataclass(frozen=True)
class Batch:
    """One micro-batch of b rows in one sequence of s tokens, with its n learned tokens and m anchors listed.

    A token sees its own row up to itself, and nothing else. (What decides is `position`, its depth, and `starts`, which
    bounds what it sees: a tree whose shared prefixes are computed once needs only a wider rule of sight here.)

    Attributes:
        tokens: token ids, int64 [1, s]; 0 where padded.
        position: of each token in its row, int64 [s].
        starts: where each row begins, int32 [b + 1]; the last entry is s. Padding belongs to the row before it.
        rows: number of each row in the caller's list; a dummy micro-batch has none, and one row of padding.
        learn_at: index of the token before each learned one, whose output gives its log-probability, int64 [n].
        learned: ids of the learned tokens, int64 [n].
        predict_at: index of the last token of each anchor, int64 [m].
        data: what the losses need of the learned tokens and anchors.
    """

    tokens: Tensor
    position: Tensor
    starts: Tensor
    rows: list[int]
    learn_at: Tensor
    learned: Tensor
    predict_at: Tensor
    data: TokenData

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return int(self.starts.diff().max())

    def to(self, device: torch.device) -> "Batch":
        """The same batch with its tensors on `device`."""
        return _moved(replace(self, data=_moved(self.data, device)), device)


def _moved(values: Held, device: torch.device) -> Held:
    tensors = {
        name: value.to(device) for name, value in vars(values).items() if isinstance(value, Tensor)
    }
    return replace(values, **tensors)


def make_batch(
    rows: Sequence[Row],
    indices: Sequence[int],
    packing: Packing,
    *,
    weights: NDArray[np.float64] | None = None,
    old: Arrays | None = None,
    reference: Arrays | None = None,
    length: int = 0,
) -> Batch:
    """The micro-batch of `rows[index] for index in indices`; without indices a dummy that learns nothing.

    Args:
        weights: of every row's tokens in the update's loss, [len(rows)]; None: 1, where no loss is computed.
        old, reference: for every row the log-probabilities [length] before the first update and of the reference
            policy, or None.
        length: fill up to so many tokens at least.

    Raises:
        ValueError: a row learns its first token, which nothing predicts.
    """
    chosen = [rows[index] for index in indices]
    for index, row in zip(indices, chosen, strict=True):
        if row.learn[0]:
            raise ValueError(
                f"row {index} learns its first token, which has no history to be predicted from"
            )
    ends = np.cumsum([0, *(packing.padded(len(row.tokens)) for row in chosen)])
    total = packing.total(max(int(ends[-1]), length))
    starts = np.array([*ends[:-1], total]) if chosen else np.array([0, total])
    tokens, position = np.zeros(total, dtype=np.int64), np.zeros(total, dtype=np.int64)
    for start, end in pairwise(starts.tolist()):
        position[start:end] = np.arange(end - start)
    for start, row in zip(starts[:-1], chosen, strict=False):
        tokens[start : start + len(row.tokens)] = row.tokens

    def listed(arrays: Sequence[np.ndarray], mask: str) -> np.ndarray:
        parts = [array[getattr(row, mask)] for array, row in zip(arrays, chosen, strict=True)]
        return np.concatenate([*parts, np.zeros(0)])

    def floats(arrays: Sequence[np.ndarray] | None, mask: str = "learn") -> Tensor | None:
        return None if arrays is None else torch.from_numpy(listed(arrays, mask).astype(np.float32))

    def places(mask: str) -> np.ndarray:
        arrays = [
            start + np.arange(len(row.tokens))
            for start, row in zip(starts[:-1], chosen, strict=False)
        ]
        return listed(arrays, mask).astype(np.int64)

    learned = places("learn")
    constant = np.ones(len(rows)) if weights is None else weights
    sequence = listed(
        [np.full(len(row.tokens), number) for number, row in enumerate(chosen)], "learn"
    )
    # Of the turns that a row learns from, each but a terminal one ends in an anchor of the row.
    after = listed([np.cumsum(row.predict) - row.predict for row in chosen], "learn")
    turns, turn = np.unique(sequence * total + after, return_inverse=True)
    data = TokenData(
        advantage=floats([row.advantage for row in chosen]),
        sampler_logprob=floats([row.sampler_logprob for row in chosen]),
        old_logprob=None if old is None else floats([old[index] for index in indices]),
        reference_logprob=None
        if reference is None
        else floats([reference[index] for index in indices]),
        weight=floats([np.full(len(rows[index].tokens), constant[index]) for index in indices]),
        sequence=torch.from_numpy(sequence.astype(np.int64)),
        sequences=len(chosen),
        turn=torch.from_numpy(turn.astype(np.int64)),
        turns=len(turns),
        target=floats([row.target for row in chosen], "predict"),
    )
    return Batch(
        tokens=torch.from_numpy(tokens)[None],
        position=torch.from_numpy(position),
        starts=torch.from_numpy(starts.astype(np.int32)),
        rows=list(indices),
        learn_at=torch.from_numpy(learned - 1),
        learned=torch.from_numpy(tokens[learned]),
        predict_at=torch.from_numpy(places("predict")),
        data=data,
    )
