"""The weights of a model spread over train ranks, under HF names: loading and gathering."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn

from megatron_trace.models.predictor import NAMES as PREDICTOR
from megatron_trace.models.weight_map import EMBEDDING, HEAD, HF_EMBEDDING, HF_HEAD
from megatron_trace.models.weight_rules import (
    DIRECT,
    VOCABULARY,
    ColumnParallel,
    Shape,
    WeightRow,
)
from megatron_trace.policy.distributed import ParallelState
from megatron_trace.policy.hf import HFReader, TensorMeta
from megatron_trace.policy.precision import fill, plain
from megatron_trace.policy.sharded_rows import (
    ShardedRow,
    gathering_blocks,
    named_parameters,
    split_block,
    survey,
)


class ModelWeights:
    """Moves weights between HF tensors and this rank's shards. Collective over all train ranks."""

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
        from megatron.core import parallel_state

        self.shape, self.parallel, self.tied = shape, parallel, tied
        self._tensor_group = parallel_state.get_tensor_model_parallel_group()
        self._expert_tensor_group = parallel_state.get_expert_tensor_parallel_group()
        self._expert_group = parallel_state.get_expert_model_parallel_group()
        self._pipeline_group = parallel_state.get_pipeline_model_parallel_group()
        self._parameters = named_parameters(chunks, parallel)
        predictor = [WeightRow((name,), (name,), DIRECT) for name in PREDICTOR]
        sharded = survey([*rows, *predictor], self._parameters, parallel, tied=tied)
        self._blocks = gathering_blocks(sharded, parallel)
        self._mark_shards()

    def _mark_shards(self) -> None:
        """Set the attributes by which Megatron recognises tensor-parallel shards.

        Megatron sets them only when it initialises the parameters itself. Without them the gradient
        norm counts tensor-parallel rank 0 alone.
        """
        for row in self._rows():
            rule, names = row.row.rule, row.row.megatron
            if names[0] == EMBEDDING:
                names = (*names, HEAD)
            for name in names:
                if isinstance(rule, ColumnParallel) and name in self._parameters:
                    parameter: Any = self._parameters[name]
                    parameter.tensor_model_parallel = True
                    parameter.partition_dim, parameter.partition_stride = rule.dim, 1

    def _rows(self) -> Iterator[ShardedRow]:
        for block in self._blocks:
            yield from block

    def load(self, reader: HFReader) -> None:
        """Fill this rank's parameters, without the predictor's, from the HF folder.

        Raises:
            ValueError: the folder lacks a tensor, holds one that the model has no place for, or one
                of another shape; the message names it.
        """
        rows = [row for row in self._rows() if row.row.hf[0] not in PREDICTOR]
        self._check_names(reader, rows)
        for row in rows:
            name = row.row.megatron[0]
            if name in self._parameters:
                self._fill(self._parameters[name], row, reader)
            # With several pipeline stages the last one has its own copy of a tied embedding.
            if self.tied and name == EMBEDDING and HEAD in self._parameters:
                self._fill(self._parameters[HEAD], row, reader)

    def _check_names(self, reader: HFReader, rows: Iterable[ShardedRow]) -> None:
        wanted = {name for row in rows for name in row.row.hf}
        present = reader.names() - ({HF_HEAD} if self.tied else set())
        if missing := sorted(wanted - present):
            raise ValueError(
                f"{reader.folder} lacks {len(missing)} tensors, the first {missing[0]}"
            )
        if extra := sorted(present - wanted):
            raise ValueError(
                f"{reader.folder} holds {len(extra)} tensors that the model has no place for, the first {extra[0]}"
            )

    def _fill(self, parameter: Tensor, row: ShardedRow, reader: HFReader) -> None:
        rule = row.row.rule
        parts = [reader.read(name) for name in row.row.hf]
        for (name, _, shape), part in zip(self._hf_metadata(row), parts, strict=True):
            if tuple(part.shape) != shape:
                raise ValueError(
                    f"{reader.folder}: {name} has shape {tuple(part.shape)}, the model needs {shape}"
                )
        full = rule.merge(parts, self.shape)
        if rule is VOCABULARY:
            padding = parameter.shape[0] * self.parallel.tensor_size - full.shape[0]
            full = nn.functional.pad(full, (0, 0, 0, padding))
        fill(parameter, rule.shard(full, *self._slice(row)))

    def _slice(self, row: ShardedRow) -> tuple[int, int]:
        """Which of how many tensor-parallel slices of a row this rank holds."""
        if row.expert_rank is None:
            return self.parallel.tensor, self.parallel.tensor_size
        return self.parallel.expert_tensor, self.parallel.expert_tensor_size

    def stream(self, *, with_tied_head: bool, with_predictor: bool) -> Iterator[tuple[str, Tensor]]:
        """Every HF tensor, whole, on every train rank, in the order of `metadata`.

        One tensor, or one block of experts, is in memory at a time. Collective: all ranks must use
        the stream up, or the others wait for ever.
        """
        for block in self._chosen(with_predictor):
            for row, full in zip(block, self._gather(block), strict=True):
                parts = row.row.rule.split(full, self.shape)
                yield from zip(row.row.hf, parts, strict=True)
                if with_tied_head and self._doubles_as_head(row):
                    yield HF_HEAD, parts[0]

    def metadata(self, *, with_tied_head: bool, with_predictor: bool) -> list[TensorMeta]:
        """Name, dtype and shape of what `stream` yields, element for element. Moves no data."""
        metadata = []
        for block in self._chosen(with_predictor):
            for row in block:
                metas = self._hf_metadata(row)
                metadata += metas
                if with_tied_head and self._doubles_as_head(row):
                    metadata.append((HF_HEAD, *metas[0][1:]))
        return metadata

    def _chosen(self, with_predictor: bool) -> list[list[ShardedRow]]:
        if with_predictor:
            return self._blocks
        return [block for block in self._blocks if block[0].row.hf[0] not in PREDICTOR]

    def _doubles_as_head(self, row: ShardedRow) -> bool:
        return self.tied and row.row.hf[0] == HF_EMBEDDING

    def _hf_metadata(self, row: ShardedRow) -> list[TensorMeta]:
        _, slices = self._slice(row)
        shards = [torch.empty(row.shape, dtype=row.dtype, device="meta")] * slices
        rule = row.row.rule
        parts = rule.split(rule.join(shards), self.shape)
        names = zip(row.row.hf, parts, strict=True)
        return [(name, part.dtype, tuple(part.shape)) for name, part in names]

    def _gather(self, block: list[ShardedRow]) -> list[Tensor]:
        """The whole Megatron tensors of a block's rows, on every rank.

        One collective for each kind of parallelism: first the tensor-parallel shards, then the
        experts of all expert-parallel ranks, within the stage that holds them; then that stage
        sends the result to the other stages.
        """
        first, parallel = block[0], self.parallel
        of_experts = first.expert_rank is not None
        experts = parallel.expert_size if of_experts else 1
        # A direct row is the same on all tensor-parallel ranks and needs no gathering there.
        shards = 1 if first.row.rule is DIRECT else self._slice(first)[1]
        length = sum(row.elements for row in block) // experts
        if parallel.pipeline == first.stage:
            tensor_group = self._expert_tensor_group if of_experts else self._tensor_group
            flat = _gathered(self._own(block), shards, tensor_group)
            flat = _gathered(flat, experts, self._expert_group)
        else:
            flat = torch.empty(experts * shards * length, dtype=first.dtype, device=parallel.device)
        if parallel.pipeline_size > 1:
            source = distributed.get_global_rank(self._pipeline_group, first.stage)
            distributed.broadcast(flat, src=source, group=self._pipeline_group)
        return split_block(block, flat.view(experts, shards, length))

    def _own(self, block: list[ShardedRow]) -> Tensor:
        """This rank's shards of a block, end to end [elements]."""
        own = [self._parameters.get(row.row.megatron[0]) for row in block]
        parts = [plain(parameter).flatten() for parameter in own if parameter is not None]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def _gathered(flat: Tensor, size: int, group: Any) -> Tensor:
    if size == 1:
        return flat
    whole = flat.new_empty(size * len(flat))
    distributed.all_gather_into_tensor(whole, flat.contiguous(), group=group)
    return whole


def drain(tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Use up a stream of tensors without keeping any, to take part in its collectives."""
    for _ in tensors:
        pass
