"""What tools/bench_train.py computes of rows: model FLOPs, padded micro-batches, and the waste of each
way to batch them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from megatron_trace.config import Pack
from megatron_trace.learning.packing import Layout, Packing, plan_pass
from megatron_trace.learning.rows import Row
from megatron_trace.models.architecture import head_width, key_value_heads, number_of_experts


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
    """What a way of batching computes.

    Attributes:
        computed: tokens over those of the rows; padding adds some, trees save some.
        micro_batches: of one rank.
        imbalance: computed tokens of the busiest rank over the mean.
    """

    computed: float
    micro_batches: int
    imbalance: float


def waste(rows: Sequence[Row], tokens: int, ranks: int, layout: str) -> Waste:
    """The waste of a layout on `ranks` ranks with micro-batches of `tokens` tokens.

    Args:
        layout: tree or rows, as training packs them; or padded: rows sorted by length, dealt to the
            ranks in snake order.
    """
    lengths = [len(row.tokens) for row in rows]
    if layout == "padded":
        work = padded_work(lengths, tokens, ranks)
    else:
        packing = Packing(capacity=tokens, pack=Pack(layout))
        work = [packed_work(rows, Layout(packing, rank, ranks)) for rank in range(ranks)]
    computed = [sum(rank) for rank in work]
    return Waste(
        computed=sum(computed) / sum(lengths),
        micro_batches=len(work[0]),
        imbalance=max(computed) * ranks / sum(computed),
    )


def packed_work(rows: Sequence[Row], layout: Layout) -> list[int]:
    """Computed tokens of every packed micro-batch of a rank; a dummy counts as one token."""
    planned = plan_pass(rows, range(len(rows)), layout, backward=False)
    return [micro_batch.starts[-1] for micro_batch in planned.micro_batches]


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
