"""A packed micro-batch: the runs of rows end to end, with what is learned from the rows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from megatron_trace.learning.packing import MicroBatch, Pass
from megatron_trace.learning.pieces import size
from megatron_trace.learning.rows import Row
from megatron_trace.learning.runs import paths
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

    A token attends to its path up to itself, and to nothing else (`runs`). A token that several
    rows learn from is scored once; each of them has a term of the loss for it. So its gradient is
    the sum of theirs.

    Attributes:
        tokens: token ids, int64 [1, s]; 0 where padded.
        position: of each token in its path, int64 [s].
        starts: where each run begins, [b + 1]; the last entry is s. Padding belongs to the last
            run.
        shared: tokens with which the row before begins as well, [b].
        rows: number of each row in the caller's list; a dummy micro-batch has none, and one run of
            padding.
        score_at: index of the token before each scored one, whose output gives its log-probability,
            int64 [u].
        scored: ids of the scored tokens, int64 [u].
        term: number of each learned token among the scored ones, int64 [n].
        predict_at: index of the last token of each anchor, int64 [m].
        filled: tokens of the sequence without its padding.
        data: what the losses need of the learned tokens and anchors.
    """

    tokens: Tensor
    position: Tensor
    starts: list[int]
    shared: list[int]
    rows: list[int]
    score_at: Tensor
    scored: Tensor
    term: Tensor
    predict_at: Tensor
    filled: int
    data: TokenData

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
    starts = micro_batch.starts
    shared = [run.shared for run in micro_batch.runs] or [0]
    tokens, position = _sequence(chosen, starts, shared)
    # Where the path of each row lies in the sequence; the last path without its padding.
    path = [
        path[: len(row.tokens)] for path, row in zip(paths(starts, shared), chosen, strict=False)
    ]
    pairs = list(zip(path, chosen, strict=True))
    learned = _flat((at[row.learn] for at, row in pairs), np.int64)
    before = _flat((at[:-1][row.learn[1:]] for at, row in pairs), np.int64)
    # A token that several rows learn lies in one place, and has one token before it.
    scored, first, term = np.unique(learned, return_index=True, return_inverse=True)
    return Batch(
        tokens=torch.from_numpy(tokens)[None],
        position=torch.from_numpy(position),
        starts=starts,
        shared=shared,
        rows=list(indices),
        score_at=torch.from_numpy(before[first]),
        scored=torch.from_numpy(tokens[scored]),
        term=torch.from_numpy(term),
        predict_at=torch.from_numpy(_flat((at[row.predict] for at, row in pairs), np.int64)),
        filled=size(micro_batch.runs),
        data=_token_data(chosen, indices, inputs or LossInputs()),
    )


def _refuse_first_token(indices: Sequence[int], chosen: Sequence[Row]) -> None:
    for index, row in zip(indices, chosen, strict=True):
        if row.learn[:1].any():
            raise ValueError(
                f"row {index} learns its first token, which has no history to be predicted from"
            )


def _sequence(
    chosen: Sequence[Row], starts: Sequence[int], shared: Sequence[int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Token ids and positions of the whole sequence, [s] each."""
    tokens, position = np.zeros((2, starts[-1]), dtype=np.int64)
    # Padding continues its row's positions: it is computed as a part of the row.
    for (start, end), depth in zip(pairwise(starts), shared, strict=True):
        position[start:end] = depth + np.arange(end - start)
    for start, depth, row in zip(starts, shared, chosen, strict=False):
        run = row.tokens[depth:]
        tokens[start : start + len(run)] = run
    return tokens, position


def _token_data(chosen: Sequence[Row], indices: Sequence[int], inputs: LossInputs) -> TokenData:
    learn = _flat((row.learn for row in chosen), np.bool_)
    predict = _flat((row.predict for row in chosen), np.bool_)

    def learned(arrays: Iterable[np.ndarray]) -> Tensor:
        return torch.from_numpy(_flat(arrays, np.float32)[learn])

    def learned_of(arrays: Arrays | None) -> Tensor | None:
        return None if arrays is None else learned(arrays[index] for index in indices)

    weights = inputs.weights
    weight = [1.0 if weights is None else weights[index] for index in indices]
    sequence, turn = _groups(chosen, learn)
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
    chosen: Sequence[Row], learn: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers of the sequence and of the turn of every learned token, [n] each."""
    numbers = (np.full(len(row.tokens), number) for number, row in enumerate(chosen))
    sequence = _flat(numbers, np.int64)[learn]
    turns = _flat((row.turn for row in chosen), np.int64)[learn]
    # Trees number their own turns, so the row is needed to tell turns apart.
    most = turns.max(initial=0) + 1
    _, turn = np.unique(sequence * most + turns, return_inverse=True)
    return sequence, turn.astype(np.int64)


def _flat(arrays: Iterable[np.ndarray], dtype: type[np.generic]) -> np.ndarray:
    """The arrays of a micro-batch's rows end to end, without padding; empty for a dummy."""
    return np.concatenate([np.zeros(0, dtype), *arrays]).astype(dtype)
