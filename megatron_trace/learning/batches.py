"""From rows to padded micro-batches, planned alike on every rank."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from megatron_trace.learning.rows import Row


@dataclass
class Batch:
    """One micro-batch of b rows, right-padded to s tokens, with its n learned tokens and m anchors listed.

    The log-probability of token (row, column) comes from the model's output at column − 1; a prediction
    comes from the hidden state at its own column.

    Attributes:
        tokens: token ids, int64 [b, s]; 0 where padded.
        rows: position of each row in the caller's list; fewer than b in a dummy micro-batch.
        learn_row, learn_column: where the learned tokens are, int64 [n], by row, then column.
        advantage, sampler_logprob: of those tokens, float32 [n].
        old_logprob: trainer's log-probability of them before the first update, float32 [n]; None for "the
            current one".
        predict_row, predict_column: where the anchors end, int64 [m].
        target: success rates to predict, float32 [m].
    """

    tokens: Tensor
    rows: list[int]
    learn_row: Tensor
    learn_column: Tensor
    advantage: Tensor
    sampler_logprob: Tensor
    old_logprob: Tensor | None
    predict_row: Tensor
    predict_column: Tensor
    target: Tensor

    @property
    def teaches_policy(self) -> bool:
        """Whether any learned token has an advantage; without one only the predictor gets a gradient."""
        return bool(self.advantage.any())

    def to(self, device: torch.device) -> "Batch":
        """The same batch with its tensors on `device`."""
        moved = {
            name: value.to(device) if isinstance(value, Tensor) else value
            for name, value in vars(self).items()
        }
        return Batch(**moved)

    @property
    def learned(self) -> Tensor:
        """Ids of the learned tokens, int64 [n]."""
        return self.tokens[self.learn_row, self.learn_column]


def split_updates(count: int, updates: int, generator: np.random.Generator) -> list[list[int]]:
    """Indices 0…count−1 dealt at random into at most `updates` non-empty parts of equal size (±1)."""
    if updates <= 1 or count <= 1:
        return [list(range(count))]
    parts = np.array_split(generator.permutation(count), min(updates, count))
    return [sorted(part.tolist()) for part in parts]


def plan_micro_batches(
    lengths: Sequence[int], selected: Sequence[int], *, ranks: int, micro_batch_tokens: int, multiple: int = 1
) -> list[list[list[int]]]:
    """Which rows each data-parallel rank computes in which micro-batch: `plan[rank][micro_batch] -> rows`.

    Rows are sorted by length and dealt in snake order, so the ranks hold rows of like length and micro-batches
    hold little padding. All ranks get equally many micro-batches; an empty one is a dummy. Call it once for the
    rows that teach the policy and once for the rest, whose backward pass stops at the predictor.

    Args:
        lengths: tokens of every row.
        selected: the rows to plan, as indices into `lengths`.
        ranks: data-parallel size.
        micro_batch_tokens: most tokens of a micro-batch, padding included.
        multiple: rows are padded to a multiple of this many tokens.

    Raises:
        ValueError: a row alone exceeds `micro_batch_tokens`.
    """
    order = sorted(selected, key=lambda index: (-lengths[index], index))
    padded = {index: -(-lengths[index] // multiple) * multiple for index in order}
    if order and padded[order[0]] > micro_batch_tokens:
        raise ValueError(
            f"a row of {padded[order[0]]} tokens (padding included) exceeds "
            f"learning.micro_batch_tokens={micro_batch_tokens}; raise it to the longest rollout"
        )
    dealt: list[list[int]] = [[] for _ in range(ranks)]
    for position, index in enumerate(order):
        lap, seat = divmod(position, ranks)
        dealt[seat if lap % 2 == 0 else ranks - 1 - seat].append(index)
    plan = []
    for rows in dealt:
        batches: list[list[int]] = []
        for index in rows:
            # The first row of a batch is its longest, which all others are padded to.
            if not batches or (len(batches[-1]) + 1) * padded[batches[-1][0]] > micro_batch_tokens:
                batches.append([])
            batches[-1].append(index)
        plan.append(batches)
    most = max((len(batches) for batches in plan), default=0)
    return [batches + [[]] * (most - len(batches)) for batches in plan]


def make_batch(
    rows: Sequence[Row], indices: Sequence[int], *, old: Sequence[np.ndarray] | None = None, multiple: int = 1
) -> Batch:
    """The micro-batch of `rows[index] for index in indices`; without indices a dummy that learns nothing.

    Args:
        old: for every row the log-probabilities [length] before the first update, or None.
        multiple: the padded length is a multiple of this.

    Raises:
        ValueError: a row learns its first token, which nothing predicts.
    """
    longest = max((len(rows[index].tokens) for index in indices), default=1)
    length = -(-longest // multiple) * multiple
    tokens = np.zeros((max(len(indices), 1), length), dtype=np.int64)
    learn, predict = np.zeros_like(tokens, dtype=bool), np.zeros_like(tokens, dtype=bool)
    for line, index in enumerate(indices):
        row = rows[index]
        if row.learn[0]:
            raise ValueError(f"row {index} learns its first token, which has no history to be predicted from")
        tokens[line, : len(row.tokens)] = row.tokens
        learn[line, : len(row.tokens)] = row.learn
        predict[line, : len(row.tokens)] = row.predict
    learn_row, learn_column = np.nonzero(learn)
    predict_row, predict_column = np.nonzero(predict)

    def listed(arrays: Sequence[np.ndarray]) -> Tensor:
        joined = np.concatenate([*arrays, np.zeros(0)]).astype(np.float32)
        return torch.from_numpy(joined)

    chosen = [rows[index] for index in indices]
    return Batch(
        tokens=torch.from_numpy(tokens),
        rows=list(indices),
        learn_row=torch.from_numpy(learn_row),
        learn_column=torch.from_numpy(learn_column),
        advantage=listed([row.advantage[row.learn] for row in chosen]),
        sampler_logprob=listed([row.sampler_logprob[row.learn] for row in chosen]),
        old_logprob=None if old is None else listed([old[index][rows[index].learn] for index in indices]),
        predict_row=torch.from_numpy(predict_row),
        predict_column=torch.from_numpy(predict_column),
        target=listed([row.target[row.predict] for row in chosen]),
    )
