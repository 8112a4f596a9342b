"""How experts that are spread over ranks are gathered: in blocks, one collective for each, nothing
lost or mixed up.
"""

import pytest
import torch

from megatron_trace.models.weight_map import FAMILIES, expand
from megatron_trace.models.weight_rules import GATE_UP, Rule
from megatron_trace.policy import sharded_rows
from megatron_trace.policy.distributed import ParallelState
from megatron_trace.policy.sharded_rows import ShardedRow, gathering_blocks, split_block

LAYERS, EXPERTS, TENSOR, EXPERT_RANKS = 2, 6, 2, 3
CONFIG = {"model_type": "qwen3_moe", "num_hidden_layers": LAYERS, "num_experts": EXPERTS}
ONE_RANK = ParallelState(
    device=torch.device("cpu"),
    tensor=0,
    tensor_size=TENSOR,
    pipeline=0,
    pipeline_size=1,
    chunks=1,
    context=0,
    data=0,
    data_size=EXPERT_RANKS,
    expert=0,
    expert_size=EXPERT_RANKS,
    expert_tensor=0,
    expert_tensor_size=TENSOR,
)


def sharded_rows_of_a_model() -> list[ShardedRow]:
    rows = []
    for row in expand(FAMILIES["qwen3_moe"], CONFIG, tied=False):
        name = row.megatron[0]
        number = name.split("local_experts.")[1].split(".")[0] if "local_experts" in name else None
        rank = None if number is None else int(number) // (EXPERTS // EXPERT_RANKS)
        shape = (4, 3) if row.rule is GATE_UP else (3, 2)
        rows.append(ShardedRow(row, 0, rank, shape, torch.float32))
    return rows


@pytest.mark.parametrize("limit", [1, 4 * 12 * TENSOR * EXPERT_RANKS * 3, 1 << 30])
def test_every_row_is_in_one_block_and_ranks_give_equally_much(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharded_rows, "BLOCK_BYTES", limit)
    rows = sharded_rows_of_a_model()
    blocks = gathering_blocks(rows, ONE_RANK)
    assert sorted(sharded.row.hf for block in blocks for sharded in block) == sorted(
        sharded.row.hf for sharded in rows
    )
    for block in blocks:
        assert len(block) == 1 or all(sharded.expert_rank is not None for sharded in block)
        given = [
            [sharded.shape for sharded in block if sharded.expert_rank == rank]
            for rank in range(EXPERT_RANKS)
        ]
        assert len(block) == 1 or given[0] == given[1] == given[2]
        assert len({sharded.row.hf[0].split(".mlp.")[0] for sharded in block}) == 1
    of_experts = sum(len(block) > 1 for block in blocks)
    assert of_experts == LAYERS * {1: 4, 1 << 30: 1}.get(limit, 2)


def test_a_gathered_block_falls_apart_into_the_tensors_it_was_made_of() -> None:
    block = next(
        block for block in gathering_blocks(sharded_rows_of_a_model(), ONE_RANK) if len(block) > 1
    )
    whole = [torch.randn(sharded.shape[0], sharded.shape[1] * TENSOR) for sharded in block]
    whole = [
        tensor
        if sharded.row.rule is not GATE_UP
        else torch.randn(sharded.shape[0] * TENSOR, sharded.shape[1])
        for sharded, tensor in zip(block, whole, strict=True)
    ]

    def sent(rank: int, shard: int) -> torch.Tensor:
        """What one rank contributes: its shards of the experts it holds, in the block's order."""
        rules: list[tuple[Rule, torch.Tensor]] = [
            (sharded.row.rule, tensor)
            for sharded, tensor in zip(block, whole, strict=True)
            if sharded.expert_rank == rank
        ]
        return torch.cat([rule.shard(tensor, shard, TENSOR).flatten() for rule, tensor in rules])

    flat = torch.stack(
        [
            torch.stack([sent(rank, shard) for shard in range(TENSOR)])
            for rank in range(EXPERT_RANKS)
        ]
    )
    for found, right in zip(split_block(block, flat), whole, strict=True):
        assert torch.equal(found, right)
