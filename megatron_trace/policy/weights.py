"""The weights of a model spread over train ranks, in Hugging Face's names: loading and gathering."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn

from megatron_trace.policy.distributed import Place
from megatron_trace.policy.hf import HFReader, TensorMeta
from megatron_trace.policy.predictor import NAMES as PREDICTOR
from megatron_trace.policy.weight_map import (
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


@dataclass(frozen=True)
class _Held:
    """What every rank must know of a row: the stage that holds it, and its shard's shape and dtype there."""

    row: WeightRow
    stage: int
    shape: tuple[int, ...]
    dtype: torch.dtype


class ModelWeights:
    """Moves weights between HF tensors and this rank's shard. Collective over all train ranks."""

    def __init__(
        self,
        module: nn.Module,
        rows: list[WeightRow],
        shape: Shape,
        place: Place,
        *,
        first_layer: int,
        tied: bool,
    ) -> None:
        """Match the table with the parameters of this stage.

        Args:
            module: the GPT model of this rank, not wrapped.
            rows: the family's rows for all layers.
            first_layer: number of this stage's first layer.
            tied: the output layer is the embedding.

        Raises:
            ValueError: a parameter has no row, or a row no parameter on any stage.
        """
        self.shape, self.place, self.tied = shape, place, tied
        rows = [*rows, *(WeightRow((name,), (name,), DIRECT) for name in PREDICTOR)]
        self._parameters = {_global_name(name, first_layer): p for name, p in module.named_parameters()}
        self._groups: dict[str, Any] = {}
        self._held = self._survey(rows)
        self._mark_shards()

    def _survey(self, rows: list[WeightRow]) -> list[_Held]:
        from megatron.core import parallel_state

        self._groups = {
            "tensor": parallel_state.get_tensor_model_parallel_group(),
            "pipeline": parallel_state.get_pipeline_model_parallel_group(),
        }
        own = {name: (tuple(p.shape), p.dtype) for name, p in self._parameters.items()}
        stages: list[dict[str, tuple[tuple[int, ...], torch.dtype]]] = [{}] * self.place.pipeline_size
        distributed.all_gather_object(stages, own, group=self._groups["pipeline"])
        held, matched = [], set()
        for row in rows:
            found = [(s, n, stages[s][n]) for s in range(len(stages)) for n in row.megatron if n in stages[s]]
            if not found:
                raise ValueError(
                    f"no stage of the model has a parameter for {', '.join(row.hf)} ({row.megatron[0]})"
                )
            stage, name, (shape, dtype) = found[0]
            matched.add(name)
            held.append(_Held(WeightRow((name,), row.hf, row.rule), stage, shape, dtype))
        # With tied embeddings on several stages the last holds a copy of the embedding as its output layer.
        allowed = {HEAD} if self.tied else set()
        for name in sorted(set().union(*stages) - matched - allowed):
            raise ValueError(f"the model's parameter {name} has no row in its family's weight map")
        return held

    def _mark_shards(self) -> None:
        """Say which parameters are shards. Megatron does so only when it initialises them itself, and without it
        the gradient norm counts tensor-parallel rank 0 alone."""
        for held in self._held:
            names = (*held.row.megatron, HEAD) if held.row.megatron[0] == EMBEDDING else held.row.megatron
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
            raise ValueError(f"{reader.folder} lacks {len(missing)} tensors, the first {missing[0]}")
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
            padding = parameter.shape[0] * self.place.tensor_size - full.shape[0]
            full = nn.functional.pad(full, (0, 0, 0, padding))
        with torch.no_grad():
            parameter.copy_(held.row.rule.shard(full, self.place.tensor, self.place.tensor_size))

    def stream(self, *, with_tied_head: bool, with_predictor: bool) -> Iterator[tuple[str, Tensor]]:
        """Every HF tensor, whole, on every train rank, in the order of `metadata`; one is held at a time.

        Collective: all ranks must use the stream up, or the others wait for ever.
        """
        for held in self._chosen(with_predictor):
            full = self._gather(held)
            parts = held.row.rule.split(full, self.shape)
            yield from zip(held.row.hf, parts, strict=True)
            if self._doubles_as_head(held, with_tied_head):
                yield HF_HEAD, parts[0]

    def metadata(self, *, with_tied_head: bool, with_predictor: bool) -> list[TensorMeta]:
        """Name, dtype and shape of what `stream` yields, element for element. Moves no data."""
        result = []
        for held in self._chosen(with_predictor):
            metas = self._hf_metadata(held)
            result += metas
            if self._doubles_as_head(held, with_tied_head):
                result.append((HF_HEAD, *metas[0][1:]))
        return result

    def _chosen(self, with_predictor: bool) -> list[_Held]:
        return [held for held in self._held if with_predictor or held.row.hf[0] not in PREDICTOR]

    def _doubles_as_head(self, held: _Held, wanted: bool) -> bool:
        return wanted and self.tied and held.row.hf[0] == HF_EMBEDDING

    def _hf_metadata(self, held: _Held) -> list[TensorMeta]:
        shards = [torch.empty(held.shape, dtype=held.dtype, device="meta")] * self.place.tensor_size
        parts = held.row.rule.split(held.row.rule.join(shards), self.shape)
        return [(n, p.dtype, tuple(p.shape)) for n, p in zip(held.row.hf, parts, strict=True)]

    def _gather(self, held: _Held) -> Tensor:
        rule, mine = held.row.rule, self.place.pipeline == held.stage
        if mine:
            shard = self._parameters[held.row.megatron[0]].detach().contiguous()
            shards = [shard]
            if rule is not DIRECT and self.place.tensor_size > 1:
                shards = [torch.empty_like(shard) for _ in range(self.place.tensor_size)]
                distributed.all_gather(shards, shard, group=self._groups["tensor"])
            full = rule.join(shards)
        else:
            full = rule.join(
                [torch.empty(held.shape, dtype=held.dtype, device="meta")] * self.place.tensor_size
            )
            full = torch.empty(full.shape, dtype=held.dtype, device=self.place.device)
        if self.place.pipeline_size > 1:
            source = distributed.get_global_rank(self._groups["pipeline"], held.stage)
            distributed.broadcast(full, src=source, group=self._groups["pipeline"])
        return full


def _global_name(name: str, first_layer: int) -> str:
    """`name` with its layer counted from the model's first layer, not the stage's."""
    prefix = "decoder.layers."
    if not name.startswith(prefix):
        return name
    number, rest = name.removeprefix(prefix).split(".", 1)
    return f"{prefix}{int(number) + first_layer}.{rest}"
