"""The weights of a model spread over train ranks, in Hugging Face's names: loading and gathering."""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn

from megatron_trace.models.predictor import NAMES as PREDICTOR
from megatron_trace.models.weight_map import (
    DIRECT,
    EMBEDDING,
    HEAD,
    HF_EMBEDDING,
    HF_HEAD,
    VOCABULARY,
    Column,
    Shape,
    WeightRow,
)
from megatron_trace.policy.distributed import ParallelState
from megatron_trace.policy.hf import HFReader, TensorMeta
from megatron_trace.policy.precision import fill, plain

BLOCK_BYTES = 256 << 20
"""Experts are gathered in blocks of about this size, not one by one."""

LAYER = re.compile(r"^(decoder\.layers\.)(\d+)")
EXPERT = re.compile(r"(\.mlp\.experts\.(?:local_experts\.|linear_fc[12]\.weight))(\d+)")


@dataclass(frozen=True)
class _Held:
    """What every rank must know of a row: which ranks hold it, and its shard's shape and dtype there.

    Attributes:
        stage: the pipeline stage.
        expert_rank: the expert-parallel rank of an expert's row; None where all hold it.
    """

    row: WeightRow
    stage: int
    expert_rank: int | None
    shape: tuple[int, ...]
    dtype: torch.dtype


class ModelWeights:
    """Moves weights between HF tensors and this rank's shard. Collective over all train ranks."""

    def __init__(
        self,
        chunks: Sequence[Any],
        rows: list[WeightRow],
        shape: Shape,
        parallel: ParallelState,
        *,
        tied: bool,
    ) -> None:
        """Match the table with the parameters of this rank.

        Args:
            chunks: this rank's parts of the GPT model, not wrapped.
            rows: the family's rows for all layers and experts.
            tied: the output layer is the embedding.

        Raises:
            ValueError: a parameter has no row, or a row no parameter on any rank.
        """
        self.shape, self.parallel, self.tied = shape, parallel, tied
        rows = [*rows, *(WeightRow((name,), (name,), DIRECT) for name in PREDICTOR)]
        experts = chunks[0].config.num_moe_experts or 0
        first_expert = parallel.expert * experts // parallel.expert_size
        self._parameters = {
            _global_name(name, chunk.decoder.layers[0].layer_number - 1, first_expert): parameter
            for chunk in chunks
            for name, parameter in chunk.named_parameters()
        }
        self._groups: dict[str, Any] = {}
        self._blocks = _in_blocks(self._survey(rows), parallel)
        self._held = [held for block in self._blocks for held in block]
        self._mark_shards()

    def _survey(self, rows: list[WeightRow]) -> list[_Held]:
        from megatron.core import parallel_state

        self._groups = {
            "tensor": parallel_state.get_tensor_model_parallel_group(),
            "expert tensor": parallel_state.get_expert_tensor_parallel_group(),
            "expert": parallel_state.get_expert_model_parallel_group(),
            "pipeline": parallel_state.get_pipeline_model_parallel_group(),
        }
        # Which stage, expert-parallel rank, shape and dtype every parameter has.
        replica = parallel_state.get_expert_tensor_model_pipeline_parallel_group()
        everyone: list[Any] = [None] * replica.size()
        own = {name: (tuple(p.shape), p.dtype) for name, p in self._parameters.items()}
        distributed.all_gather_object(
            everyone, (self.parallel.pipeline, self.parallel.expert, own), group=replica
        )
        found = {
            name: (stage, rank, *meta)
            for stage, rank, own in everyone
            for name, meta in own.items()
        }
        held, matched = [], set()
        for row in rows:
            name = next((name for name in row.megatron if name in found), None)
            if name is None:
                raise ValueError(
                    f"no rank of the model has a parameter for {', '.join(row.hf)} ({row.megatron[0]})"
                )
            matched.add(name)
            stage, rank, shape, dtype = found[name]
            row = WeightRow((name,), row.hf, row.rule)
            held.append(_Held(row, stage, rank if EXPERT.search(name) else None, shape, dtype))
        # With tied embeddings on several stages the last holds a copy of the embedding as its output layer.
        allowed = {HEAD} if self.tied else set()
        for name in sorted(found.keys() - matched - allowed):
            raise ValueError(f"the model's parameter {name} has no row in its family's weight map")
        return held

    def _mark_shards(self) -> None:
        """Say which parameters are shards. Megatron does so only when it initialises them itself, and without it
        the gradient norm counts tensor-parallel rank 0 alone."""
        for held in self._held:
            names = (
                (*held.row.megatron, HEAD)
                if held.row.megatron[0] == EMBEDDING
                else held.row.megatron
            )
            for name in names:
                if isinstance(held.row.rule, Column) and name in self._parameters:
                    parameter: Any = self._parameters[name]
                    parameter.tensor_model_parallel = True
                    parameter.partition_dim, parameter.partition_stride = held.row.rule.dim, 1

    def load(self, reader: HFReader) -> None:
        """Fill this rank's parameters, the predictor's left out, from the HF folder.

        Raises:
            ValueError: the folder lacks a tensor, holds one that the model has no place for, or one of
                another shape; the message names it.
        """
        rows = [held for held in self._held if held.row.hf[0] not in PREDICTOR]
        wanted = {name for held in rows for name in held.row.hf}
        stored = reader.names() - ({HF_HEAD} if self.tied else set())
        if missing := sorted(wanted - stored):
            raise ValueError(
                f"{reader.folder} lacks {len(missing)} tensors, the first {missing[0]}"
            )
        if extra := sorted(stored - wanted):
            raise ValueError(
                f"{reader.folder} holds {len(extra)} tensors that the model has no place for, the first {extra[0]}"
            )
        for held in rows:
            if held.row.megatron[0] in self._parameters:
                self._fill(self._parameters[held.row.megatron[0]], held, reader)
            if self.tied and held.row.megatron[0] == EMBEDDING and HEAD in self._parameters:
                self._fill(self._parameters[HEAD], held, reader)

    def _fill(self, parameter: Tensor, held: _Held, reader: HFReader) -> None:
        parts = [reader.read(name) for name in held.row.hf]
        for (name, _, shape), part in zip(self._hf_metadata(held), parts, strict=True):
            if tuple(part.shape) != shape:
                raise ValueError(
                    f"{reader.folder}: {name} has shape {tuple(part.shape)}, the model needs {shape}"
                )
        full = held.row.rule.merge(parts, self.shape)
        if held.row.rule is VOCABULARY:
            padding = parameter.shape[0] * self.parallel.tensor_size - full.shape[0]
            full = nn.functional.pad(full, (0, 0, 0, padding))
        fill(parameter, held.row.rule.shard(full, *self._slice(held)))

    def _slice(self, held: _Held) -> tuple[int, int]:
        """Which of how many tensor-parallel slices of a row this rank holds."""
        if held.expert_rank is None:
            return self.parallel.tensor, self.parallel.tensor_size
        return self.parallel.expert_tensor, self.parallel.expert_tensor_size

    def stream(self, *, with_tied_head: bool, with_predictor: bool) -> Iterator[tuple[str, Tensor]]:
        """Every HF tensor, whole, on every train rank, in the order of `metadata`; one, or one block of experts, is
        held at a time.

        Collective: all ranks must use the stream up, or the others wait for ever.
        """
        for block in self._chosen(with_predictor):
            for held, full in zip(block, self._gather(block), strict=True):
                parts = held.row.rule.split(full, self.shape)
                yield from zip(held.row.hf, parts, strict=True)
                if self._doubles_as_head(held, with_tied_head):
                    yield HF_HEAD, parts[0]

    def metadata(self, *, with_tied_head: bool, with_predictor: bool) -> list[TensorMeta]:
        """Name, dtype and shape of what `stream` yields, element for element. Moves no data."""
        result = []
        for held in (held for block in self._chosen(with_predictor) for held in block):
            metas = self._hf_metadata(held)
            result += metas
            if self._doubles_as_head(held, with_tied_head):
                result.append((HF_HEAD, *metas[0][1:]))
        return result

    def _chosen(self, with_predictor: bool) -> list[list[_Held]]:
        return [
            block for block in self._blocks if with_predictor or block[0].row.hf[0] not in PREDICTOR
        ]

    def _doubles_as_head(self, held: _Held, wanted: bool) -> bool:
        return wanted and self.tied and held.row.hf[0] == HF_EMBEDDING

    def _hf_metadata(self, held: _Held) -> list[TensorMeta]:
        shards = [torch.empty(held.shape, dtype=held.dtype, device="meta")] * self._slice(held)[1]
        parts = held.row.rule.split(held.row.rule.join(shards), self.shape)
        return [(n, p.dtype, tuple(p.shape)) for n, p in zip(held.row.hf, parts, strict=True)]

    def _gather(self, block: list[_Held]) -> list[Tensor]:
        """The whole Megatron tensors of a block's rows, on every rank: one collective for each kind of parallelism."""
        first, parallel = block[0], self.parallel
        experts = 1 if first.expert_rank is None else parallel.expert_size
        shards = 1 if first.row.rule is DIRECT else self._slice(first)[1]
        length = sum(torch.Size(held.shape).numel() for held in block) // experts
        if parallel.pipeline == first.stage:
            mine = [self._parameters.get(held.row.megatron[0]) for held in block]
            parts = [plain(parameter).flatten() for parameter in mine if parameter is not None]
            flat = parts[0] if len(parts) == 1 else torch.cat(parts)
            flat = self._gathered(
                flat, shards, "tensor" if first.expert_rank is None else "expert tensor"
            )
            flat = self._gathered(flat, experts, "expert")
        else:
            flat = torch.empty(experts * shards * length, dtype=first.dtype, device=parallel.device)
        if parallel.pipeline_size > 1:
            source = distributed.get_global_rank(self._groups["pipeline"], first.stage)
            distributed.broadcast(flat, src=source, group=self._groups["pipeline"])
        return _joined(block, flat.view(experts, shards, length))

    def _gathered(self, flat: Tensor, size: int, group: str) -> Tensor:
        if size == 1:
            return flat
        whole = flat.new_empty(size * len(flat))
        distributed.all_gather_into_tensor(whole, flat.contiguous(), group=self._groups[group])
        return whole


def _in_blocks(rows: list[_Held], parallel: ParallelState) -> list[list[_Held]]:
    """Rows that are gathered together: every row by itself, and a layer's experts in blocks to which every
    expert-parallel rank gives rows of the same shapes."""
    blocks: list[list[_Held]] = []
    for of_experts, found in itertools.groupby(rows, _is_expert):
        if not of_experts:
            blocks += [[held] for held in found]
            continue
        ranks: list[list[_Held]] = [[] for _ in range(parallel.expert_size)]
        for held in found:
            ranks[held.expert_rank or 0].append(held)
        largest = max(torch.Size(held.shape).numel() * held.dtype.itemsize for held in ranks[0])
        step = max(1, BLOCK_BYTES // (largest * parallel.expert_tensor_size * parallel.expert_size))
        for start in range(0, len(ranks[0]), step):
            blocks.append([held for own in ranks for held in own[start : start + step]])
    return blocks


def _is_expert(held: _Held) -> bool:
    return held.expert_rank is not None


def _joined(block: list[_Held], flat: Tensor) -> list[Tensor]:
    """Cut the gathered [expert-parallel rank, shard, elements] of a block up into its rows' whole tensors."""
    wholes, taken = [], [0] * len(flat)
    for held in block:
        rank = held.expert_rank or 0
        start = taken[rank]
        taken[rank] += torch.Size(held.shape).numel()
        shards = [shard[start : taken[rank]].view(held.shape) for shard in flat[rank]]
        wholes.append(held.row.rule.join(shards))
    return wholes


def _global_name(name: str, first_layer: int, first_expert: int) -> str:
    """`name` with its layer and expert counted from the model's first, not the rank's."""
    for pattern, first in ((LAYER, first_layer), (EXPERT, first_expert)):
        if match := pattern.search(name):
            name = f"{name[: match.start(2)]}{int(match[2]) + first}{name[match.end(2) :]}"
    return name
