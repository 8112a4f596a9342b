"""Arithmetic between Hugging Face tensors, whole Megatron tensors and their tensor-parallel shards.

A rule is one kind of parameter. The families' tables (`weight_map.py`) name a rule for each
parameter; loading, weight sync, conversion and export apply the rules, so none of them can
disagree.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Shape:
    """The sizes of a model that the rules need.

    Attributes:
        groups: key-value heads.
        heads: query heads.
        head_dim: width of one head.
        vocabulary: tokens that config.json counts; Megatron's tables are padded beyond them.
    """

    groups: int
    heads: int
    head_dim: int
    vocabulary: int


class Rule:
    """HF tensors <-> one whole Megatron tensor <-> its tensor-parallel shards.

    The base class is the rule `DIRECT`: one HF tensor, the same on every rank.
    """

    def merge(self, parts: Sequence[Tensor], shape: Shape) -> Tensor:
        """The whole Megatron tensor of the row's HF tensors."""
        return parts[0]

    def split(self, full: Tensor, shape: Shape) -> list[Tensor]:
        """The HF tensors of the whole Megatron tensor; the inverse of `merge`."""
        return [full]

    def shard(self, full: Tensor, rank: int, ranks: int) -> Tensor:
        """The part of `full` that tensor-parallel `rank` holds."""
        return full

    def join(self, shards: Sequence[Tensor]) -> Tensor:
        """The whole tensor of all ranks' parts; the inverse of `shard`."""
        return shards[0]


class ColumnParallel(Rule):
    """Sharded along dimension 0, the outputs."""

    dim = 0

    def shard(self, full: Tensor, rank: int, ranks: int) -> Tensor:
        """Equal slices along `dim`."""
        return full.chunk(ranks, self.dim)[rank]

    def join(self, shards: Sequence[Tensor]) -> Tensor:
        """The slices end to end."""
        return torch.cat(list(shards), self.dim)


class RowParallel(ColumnParallel):
    """Sharded along dimension 1, the inputs."""

    dim = 1


class VocabularyTable(ColumnParallel):
    """Sharded along the vocabulary, which Megatron pads with zero rows.

    `merge` does not pad: the loader does, because only the loader knows the padded length.
    """

    def split(self, full: Tensor, shape: Shape) -> list[Tensor]:
        """The table without its padding."""
        return [full[: shape.vocabulary]]


class QueryKeyValue(ColumnParallel):
    """q, k, v <-> for each key-value group its query heads, key and value: [q…, k, v] repeated.

    Works on weights [outputs, hidden] and on biases [outputs].
    """

    def merge(self, parts: Sequence[Tensor], shape: Shape) -> Tensor:
        """Interleave by group."""
        # Megatron shards the merged matrix in equal slices. Only with whole groups side by side
        # does such a slice hold the query heads together with the key and the value that they
        # attend to.
        grouped = []
        for part in parts:
            rest = part.shape[1:]
            grouped.append(part.reshape(shape.groups, -1, shape.head_dim, *rest))
        return torch.cat(grouped, dim=1).reshape(-1, *parts[0].shape[1:])

    def split(self, full: Tensor, shape: Shape) -> list[Tensor]:
        """Take the groups apart."""
        queries, rest = shape.heads // shape.groups, full.shape[1:]
        grouped = full.reshape(shape.groups, queries + 2, shape.head_dim, *rest)
        return [part.reshape(-1, *rest) for part in grouped.split([queries, 1, 1], dim=1)]


class GateUp(ColumnParallel):
    """gate, up <-> their concatenation, of which every rank holds its slice of both."""

    def merge(self, parts: Sequence[Tensor], shape: Shape) -> Tensor:
        """gate above up."""
        return torch.cat(list(parts))

    def split(self, full: Tensor, shape: Shape) -> list[Tensor]:
        """The two halves."""
        return list(full.chunk(2))

    def shard(self, full: Tensor, rank: int, ranks: int) -> Tensor:
        """[gate of the rank; up of the rank]."""
        # SwiGLU multiplies matching outputs of gate and up, so a rank needs the same slice of both.
        return torch.cat([half.chunk(ranks)[rank] for half in full.chunk(2)])

    def join(self, shards: Sequence[Tensor]) -> Tensor:
        """All gates, then all ups."""
        halves = [shard.chunk(2) for shard in shards]
        gates = [half[0] for half in halves]
        ups = [half[1] for half in halves]
        return torch.cat(gates + ups)


DIRECT = Rule()
ROW = RowParallel()
VOCABULARY = VocabularyTable()
QKV = QueryKeyValue()
GATE_UP = GateUp()


@dataclass(frozen=True)
class WeightRow:
    """One Megatron parameter and the HF tensors that make it.

    In a name `{layer}` stands for the layer's number, counted from 0 over all pipeline stages, and
    `{expert}` for the expert's number in that layer, counted from 0 over all expert-parallel ranks.

    Attributes:
        megatron: the parameter's name in Megatron's local spec, then in Transformer Engine's, which
            fuses layernorms into the next linear and groups experts.
        hf: names of the HF tensors, in the order that `rule` expects.
        rule: the arithmetic between the two.
    """

    megatron: tuple[str, ...]
    hf: tuple[str, ...]
    rule: Rule
