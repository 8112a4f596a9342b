"""A packed micro-batch: rows end to end in one sequence, with what is learned from them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from megatron_trace.learning.packing import MicroBatch, Pass
from megatron_trace.learning.rows import Row
from megatron_trace.learning.tokens import TokenData

Arrays = Sequence[NDArray[np.float32]]
"""For every row an array [length]."""

OfTensors = TypeVar("OfTensors", "Batch", TokenData)


@dataclass(frozen=True)
class LossInputs:
    """What the loss needs of a step's rows, besides the rows.

    Attributes:
        weights: of every row's tokens in the update's loss, [rows]; None: 1, where no loss is
            computed.
        old: log-probabilities before the first update; None: those of the pass itself.
        reference: log-probabilities of the reference policy; None: there is none.
    """

    weights: NDArray[np.float64] | None = None
    old: Arrays | None = None
    reference: Arrays | None = None


@dataclass(frozen=True)
class Batch:
    """One micro-batch of b rows in a sequence of s tokens, with n learned tokens and m anchors.

    A token attends to its own row up to itself, and to nothing else. `position` (its depth in the
    row) and `starts` (which bounds what it attends to) decide that. A tree whose shared prefixes
    are computed once would need only a wider rule of attention here.

    Attributes:
        tokens: token ids, int64 [1, s]; 0 where padded.
        position: of each token in its row, int64 [s].
        starts: where each row begins, int32 [b + 1]; the last entry is s. Padding belongs to the
            row before it.
        rows: number of each row in the caller's list; a dummy micro-batch has none, and one row of
            padding.
        learn_at: index of the token before each learned one, whose output gives its
            log-probability, int64 [n].
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


def _moved(values: OfTensors, device: torch.device) -> OfTensors:
    tensors = {}
    for name, value in vars(values).items():
        if isinstance(value, Tensor):
            tensors[name] = value.to(device)
    return replace(values, **tensors)


def make_batches(rows: Sequence[Row], planned: Pass, inputs: LossInputs) -> list[Batch]:
    """The micro-batches of a pass over `rows`; see `make_batch`."""
    return [make_batch(rows, micro_batch, inputs) for micro_batch in planned.micro_batches]


def make_batch(
    rows: Sequence[Row], micro_batch: MicroBatch, inputs: LossInputs | None = None
) -> Batch:
    """The tensors of a planned micro-batch of `rows`; a dummy learns nothing.

    Args:
        inputs: of all `rows`; None: no loss is computed.

    Raises:
        ValueError: a row learns its first token, which nothing predicts.
    """
    indices = micro_batch.rows
    chosen = [rows[index] for index in indices]
    _refuse_first_token(indices, chosen)
    starts = np.array(micro_batch.starts)
    tokens, position = _sequence(chosen, starts)
    # Where each token of a row lies in the sequence, row after row without the padding between
    # them.
    pairs = zip(starts[:-1], chosen, strict=False)
    at = _flat((start + np.arange(len(row.tokens)) for start, row in pairs), np.int64)
    learned = at[_flat((row.learn for row in chosen), np.bool_)]
    anchors = at[_flat((row.predict for row in chosen), np.bool_)]
    return Batch(
        tokens=torch.from_numpy(tokens)[None],
        position=torch.from_numpy(position),
        starts=torch.from_numpy(starts.astype(np.int32)),
        rows=list(indices),
        learn_at=torch.from_numpy(learned - 1),
        learned=torch.from_numpy(tokens[learned]),
        predict_at=torch.from_numpy(anchors),
        data=_token_data(chosen, indices, inputs or LossInputs(), len(tokens)),
    )


def _refuse_first_token(indices: Sequence[int], chosen: Sequence[Row]) -> None:
    for index, row in zip(indices, chosen, strict=True):
        if row.learn[0]:
            raise ValueError(
                f"row {index} learns its first token, which has no history to be predicted from"
            )


def _sequence(
    chosen: Sequence[Row], starts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Token ids and positions of the whole sequence, [s] each."""
    total = int(starts[-1])
    tokens, position = np.zeros(total, dtype=np.int64), np.zeros(total, dtype=np.int64)
    # Padding continues its row's positions: it is computed as a part of the row.
    for start, end in pairwise(starts.tolist()):
        position[start:end] = np.arange(end - start)
    for start, row in zip(starts[:-1], chosen, strict=False):
        tokens[start : start + len(row.tokens)] = row.tokens
    return tokens, position


def _token_data(
    chosen: Sequence[Row], indices: Sequence[int], inputs: LossInputs, total: int
) -> TokenData:
    learn = _flat((row.learn for row in chosen), np.bool_)
    predict = _flat((row.predict for row in chosen), np.bool_)

    def learned(arrays: Iterable[np.ndarray]) -> Tensor:
        return torch.from_numpy(_flat(arrays, np.float32)[learn])

    def learned_of(arrays: Arrays | None) -> Tensor | None:
        return None if arrays is None else learned(arrays[index] for index in indices)

    weights = inputs.weights
    weight = [1.0 if weights is None else weights[index] for index in indices]
    sequence, turn = _groups(chosen, learn, total)
    return TokenData(
        advantage=learned(row.advantage for row in chosen),
        sampler_logprob=learned(row.sampler_logprob for row in chosen),
        old_logprob=learned_of(inputs.old),
        reference_logprob=learned_of(inputs.reference),
        weight=learned(np.full(len(row.tokens), w) for row, w in zip(chosen, weight, strict=True)),
        sequence=torch.from_numpy(sequence),
        sequences=len(chosen),
        turn=torch.from_numpy(turn),
        turns=len(np.unique(turn)),
        target=torch.from_numpy(_flat((row.target for row in chosen), np.float32)[predict]),
    )


def _groups(
    chosen: Sequence[Row], learn: NDArray[np.bool_], total: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers of the sequence and of the turn of every learned token, [n] each."""
    numbers = (np.full(len(row.tokens), number) for number, row in enumerate(chosen))
    sequence = _flat(numbers, np.int64)[learn]
    # A row does not store its turns. But each turn that it learns from, unless it is the terminal
    # one, ends in an anchor of the row: the anchors before a token number its turn.
    anchors_before = (np.cumsum(row.predict) - row.predict for row in chosen)
    before = _flat(anchors_before, np.int64)[learn]
    _, turn = np.unique(sequence * total + before, return_inverse=True)
    return sequence, turn.astype(np.int64)


def _flat(arrays: Iterable[np.ndarray], dtype: type[np.generic]) -> np.ndarray:
    """The arrays of a micro-batch's rows end to end, without padding; empty for a dummy."""
    return np.concatenate([np.zeros(0, dtype), *arrays]).astype(dtype)
