"""The batch of tools/bench_train.py: its rows, their model FLOPs, and the padding of two ways to
batch them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from megatron_trace.learning.packing import Packing, plan_micro_batches
from megatron_trace.learning.rows import Row, rows_from_trees
from megatron_trace.learning.runs import Run
from megatron_trace.models.architecture import head_width, key_value_heads, number_of_experts
from megatron_trace.tree import load_trees


def read_rows(trees: Path | None, vocabulary: int, most: int) -> list[Row]:
    """The rows of the last step of a run's saved trees, or made-up ones; at most `most`."""
    if trees is None:
        return made_up_rows(most, vocabulary)
    files = sorted(trees.glob("trees/step_*.jsonl.gz"))
    if not files:
        raise SystemExit(f"{trees} holds no trees/step_*.jsonl.gz; name a run's folder")
    return rows_from_trees(load_trees(files[-1]))[:most]


def made_up_rows(count: int, vocabulary: int, seed: int = 0) -> list[Row]:
    """`count` rollouts of 2 to 6 turns, 30 to 350 tokens long; one in eight teaches the policy
    nothing.
    """
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        parts = [np.zeros(generator.integers(20, 35), dtype=bool)]
        anchors = [len(parts[0]) - 1]
        for _ in range(int(generator.integers(1, 6))):
            action = np.ones(generator.integers(8, 22), dtype=bool)
            parts += [action, np.zeros(generator.integers(15, 45), dtype=bool)]
            anchors.append(sum(map(len, parts)) - 1)
        parts.append(np.ones(generator.integers(8, 22), dtype=bool))
        learn = np.concatenate(parts)
        predict = np.zeros(len(learn), dtype=bool)
        predict[anchors] = True
        # Like the rows of a tree in which all rollouts ended alike.
        advantage = generator.normal() if number % 8 else 0.0
        rows.append(
            Row(
                tokens=generator.integers(0, vocabulary, len(learn)),
                learn=learn,
                advantage=(learn * advantage).astype(np.float32),
                sampler_logprob=(learn * -1.0).astype(np.float32),
                predict=predict,
                target=(predict * 0.5).astype(np.float32),
                turn=np.cumsum(predict) - predict,
                tree=number,
            )
        )
    return rows


def model_flops(hf: dict[str, Any], rows: Sequence[Row]) -> float:
    """FLOPs that one train step on `rows` needs, without padding and recomputation.

    A token needs 2 FLOPs for each weight of its layers' matrices, and at position t another
    4·t·heads·head_dim in each layer's attention. A learned token's hidden state needs
    2·hidden·vocabulary more. The backward pass needs twice as much; only rows with an advantage
    have one. The predictor, norms and embeddings are left out.
    """
    hidden, queries = hf["hidden_size"], hf["num_attention_heads"] * head_width(hf)
    width = hf["intermediate_size"]
    if number_of_experts(hf):
        width = hf["moe_intermediate_size"] * hf["num_experts_per_tok"]
    attention = 2 * hidden * (queries + key_value_heads(hf) * head_width(hf))
    layer = attention + 3 * hidden * width
    total = 0.0
    for row in rows:
        length = len(row.tokens)
        matrices = 2 * layer * length
        # The sum of 4·t·queries over the positions t = 1 … length.
        scores = 2 * queries * length * (length + 1)
        forward = hf["num_hidden_layers"] * (matrices + scores)
        forward += 2 * hidden * hf["vocab_size"] * int(row.learn.sum())
        total += forward * (3 if row.advantage.any() else 1)
    return total


def padded_plan(
    lengths: Sequence[int], selected: Sequence[int], micro_batch_tokens: int
) -> list[list[int]]:
    """Rows sorted by length, in right-padded micro-batches of at most `micro_batch_tokens` tokens.

    Args:
        lengths: tokens of every row.
        selected: the rows to use, as indices into `lengths`.
    """
    plan: list[list[int]] = []
    for index in sorted(selected, key=lambda index: -lengths[index]):
        # The first row of a micro-batch is its longest; the others are padded to its length.
        batch = plan[-1] if plan else []
        if not batch or (len(batch) + 1) * lengths[batch[0]] > micro_batch_tokens:
            batch = []
            plan.append(batch)
        batch.append(index)
    return plan


@dataclass(frozen=True)
class Waste:
    """What a way of batching costs beyond the rows themselves.

    Attributes:
        padding: share of the computed tokens that is padding.
        micro_batches: of one rank.
        imbalance: computed tokens of the busiest rank over the mean.
    """

    padding: float
    micro_batches: int
    imbalance: float


def waste(lengths: Sequence[int], tokens: int, ranks: int, *, packed: bool) -> Waste:
    """The waste of rows of `lengths` tokens on `ranks` ranks with micro-batches of `tokens` tokens.

    Packed: what training does. Padded: rows sorted by length, dealt to the ranks in snake order.
    """
    work = packed_work(lengths, tokens, ranks) if packed else padded_work(lengths, tokens, ranks)
    computed = [sum(rank) for rank in work]
    return Waste(
        padding=1 - sum(lengths) / sum(computed),
        micro_batches=len(work[0]),
        imbalance=max(computed) * ranks / sum(computed),
    )


def packed_work(lengths: Sequence[int], tokens: int, ranks: int) -> list[list[int]]:
    """Computed tokens of every packed micro-batch of each rank; a dummy micro-batch counts as one
    token.
    """
    rows = [[Run(index, length, 0)] for index, length in enumerate(lengths)]
    plan = plan_micro_batches(rows, ranks=ranks, packing=Packing(capacity=tokens))
    work = []
    for rank in plan:
        tokens_of = [sum(lengths[index] for index in batch) for batch in rank]
        work.append([tokens or 1 for tokens in tokens_of])
    return work


def padded_work(lengths: Sequence[int], tokens: int, ranks: int) -> list[list[int]]:
    """Computed tokens of every padded micro-batch of each rank; a dummy micro-batch counts as one
    token.
    """
    # Snake order: who gets the longest row of a round gets the shortest of the next.
    seats = [*range(ranks), *reversed(range(ranks))]
    dealt: list[list[int]] = [[] for _ in range(ranks)]
    longest_first = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    for position, index in enumerate(longest_first):
        dealt[seats[position % len(seats)]].append(index)
    work = []
    for rank in dealt:
        plan = padded_plan(lengths, rank, tokens)
        work.append([len(batch) * lengths[batch[0]] for batch in plan])
    most = max(map(len, work))
    return [rank + [1] * (most - len(rank)) for rank in work]
