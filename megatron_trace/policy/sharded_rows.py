"""Which train rank holds which part of each parameter, and which are gathered together."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed

from megatron_trace.models.weight_map import HEAD
from megatron_trace.models.weight_rules import WeightRow
from megatron_trace.policy.distributed import ParallelState

BLOCK_BYTES = 256 << 20
"""Experts are gathered in blocks of about this size, as one collective each would be slow."""

LAYER = re.compile(r"^(decoder\.layers\.)(\d+)")
EXPERT = re.compile(r"(\.mlp\.experts\.(?:local_experts\.|linear_fc[12]\.weight))(\d+)")

_Found = dict[str, tuple[int, int, tuple[int, ...], torch.dtype]]
"""Pipeline stage, expert-parallel rank, shard shape and dtype of each parameter, by its name."""


@dataclass(frozen=True)
class ShardedRow:
    """A row of the weight map with the ranks that hold it; the same on every rank.

    Attributes:
        row: the row; `row.megatron` is the one name that this model gives the parameter.
        stage: the pipeline stage that holds it.
        expert_rank: the expert-parallel rank of an expert's row; None where all hold it.
        shape, dtype: of one tensor-parallel shard.
    """

    row: WeightRow
    stage: int
    expert_rank: int | None
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def elements(self) -> int:
        """Elements of one shard."""
        return torch.Size(self.shape).numel()


def named_parameters(chunks: Sequence[Any], parallel: ParallelState) -> dict[str, Tensor]:
    """This rank's parameters, with layers and experts counted from the model's first.

    Args:
        chunks: this rank's parts of the GPT model, not wrapped.
    """
    # Megatron counts both from the rank's first one, so two stages would use the same names.
    experts = chunks[0].config.num_moe_experts or 0
    first_expert = parallel.expert * experts // parallel.expert_size
    parameters = {}
    for chunk in chunks:
        first_layer = chunk.decoder.layers[0].layer_number - 1
        for name, parameter in chunk.named_parameters():
            parameters[_global_name(name, first_layer, first_expert)] = parameter
    return parameters


def _global_name(name: str, first_layer: int, first_expert: int) -> str:
    for pattern, first in ((LAYER, first_layer), (EXPERT, first_expert)):
        if match := pattern.search(name):
            number = int(match[2]) + first
            name = f"{name[: match.start(2)]}{number}{name[match.end(2) :]}"
    return name


def survey(
    rows: Sequence[WeightRow],
    parameters: Mapping[str, Tensor],
    parallel: ParallelState,
    *,
    tied: bool,
) -> list[ShardedRow]:
    """Find the ranks of every row. Collective over all train ranks.

    Args:
        rows: the model's rows for all layers and experts.
        parameters: this rank's, as `named_parameters` names them.
        tied: the output layer is the embedding.

    Raises:
        ValueError: a parameter of any rank has no row, or a row no parameter on any rank.
    """
    found = _parameters_of_all_ranks(parameters, parallel)
    sharded, matched = [], set()
    for row in rows:
        name = next((name for name in row.megatron if name in found), None)
        if name is None:
            raise ValueError(
                f"no rank of the model has a parameter for {', '.join(row.hf)} ({row.megatron[0]})"
            )
        matched.add(name)
        stage, expert_rank, shape, dtype = found[name]
        sharded.append(
            ShardedRow(
                row=WeightRow((name,), row.hf, row.rule),
                stage=stage,
                expert_rank=expert_rank if EXPERT.search(name) else None,
                shape=shape,
                dtype=dtype,
            )
        )
    # With tied embeddings on several stages the last holds a copy of the embedding as its output
    # layer.
    allowed = {HEAD} if tied else set()
    for name in sorted(found.keys() - matched - allowed):
        raise ValueError(f"the model's parameter {name} has no row in its family's weight map")
    return sharded


def _parameters_of_all_ranks(parameters: Mapping[str, Tensor], parallel: ParallelState) -> _Found:
    from megatron.core import parallel_state

    # The ranks of this group together hold each shard of the model once; data-parallel copies are
    # left out.
    replica = parallel_state.get_expert_tensor_model_pipeline_parallel_group()
    own = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in parameters.items()}
    everyone: list[Any] = [None] * replica.size()
    distributed.all_gather_object(
        everyone, (parallel.pipeline, parallel.expert, own), group=replica
    )
    found: _Found = {}
    for stage, expert_rank, theirs in everyone:
        for name, (shape, dtype) in theirs.items():
            found[name] = (stage, expert_rank, shape, dtype)
    return found


def gathering_blocks(rows: Sequence[ShardedRow], parallel: ParallelState) -> list[list[ShardedRow]]:
    """Rows that are gathered together, in the order of `rows`.

    Every row is a block by itself, but a layer's experts are gathered in blocks of several. Every
    expert-parallel rank contributes rows of the same shapes to a block, as all-gather requires.
    """
    blocks: list[list[ShardedRow]] = []
    for of_experts, group in itertools.groupby(rows, lambda row: row.expert_rank is not None):
        if of_experts:
            blocks += _expert_blocks(group, parallel)
        else:
            blocks += [[row] for row in group]
    return blocks


def _expert_blocks(
    rows: Iterator[ShardedRow], parallel: ParallelState
) -> Iterator[list[ShardedRow]]:
    by_rank: list[list[ShardedRow]] = [[] for _ in range(parallel.expert_size)]
    for row in rows:
        by_rank[row.expert_rank or 0].append(row)
    largest = max(row.elements * row.dtype.itemsize for row in by_rank[0])
    ranks = parallel.expert_tensor_size * parallel.expert_size
    step = max(1, BLOCK_BYTES // (largest * ranks))
    for start in range(0, len(by_rank[0]), step):
        yield [row for own in by_rank for row in own[start : start + step]]


def split_block(block: Sequence[ShardedRow], gathered: Tensor) -> list[Tensor]:
    """Cut a gathered block up into its rows' whole Megatron tensors.

    Args:
        gathered: [expert-parallel ranks, shards, elements of one rank's shards].
    """
    wholes = []
    taken = [0] * len(gathered)
    for row in block:
        rank = row.expert_rank or 0
        start = taken[rank]
        taken[rank] += row.elements
        shards = [shard[start : taken[rank]].view(row.shape) for shard in gathered[rank]]
        wholes.append(row.row.rule.join(shards))
    return wholes
