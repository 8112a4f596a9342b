"""Which Hugging Face tensors make which Megatron-Core parameter: one table per model family.

Loading, weight sync and export all read these tables, so they cannot disagree. A family is its rows; a row is
the parameter's names (local spec, then Transformer Engine's, where layernorms are fused into the next linear),
the HF names, and the rule between them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Shape:
    """The sizes that the rules need.

    Attributes:
        groups: key-value heads.
        heads: query heads.
        head_dim: width of one head.
        vocabulary: real tokens; Megatron's tables may be longer.
    """

    groups: int
    heads: int
    head_dim: int
    vocabulary: int


class Rule:
    """HF tensors <-> one full Megatron tensor <-> its tensor-parallel shards. The base class is `direct`:
    the same tensor on every rank."""

    def merge(self, parts: Sequence[Tensor], shape: Shape) -> Tensor:
        """The full Megatron tensor of the row's HF tensors."""
        return parts[0]

    def split(self, full: Tensor, shape: Shape) -> list[Tensor]:
        """The HF tensors of the full Megatron tensor; the inverse of `merge`."""
        return [full]

    def shard(self, full: Tensor, rank: int, ranks: int) -> Tensor:
        """The part of `full` that tensor-parallel `rank` holds."""
        return full

    def join(self, shards: Sequence[Tensor]) -> Tensor:
        """The full tensor of all ranks' parts; the inverse of `shard`."""
        return shards[0]


class Column(Rule):
    """Split over dimension 0, the outputs."""

    dim = 0

    def shard(self, full: Tensor, rank: int, ranks: int) -> Tensor:
        """Equal slices along `dim`."""
        return full.chunk(ranks, self.dim)[rank]

    def join(self, shards: Sequence[Tensor]) -> Tensor:
        """The slices end to end."""
        return torch.cat(list(shards), self.dim)


class Row(Column):
    """Split over dimension 1, the inputs."""

    dim = 1


class Vocabulary(Column):
    """Split over the vocabulary, which Megatron pads with zero rows to a multiple of the ranks."""

    def split(self, full: Tensor, shape: Shape) -> list[Tensor]:
        """Without the padding. (`merge` leaves it to the loader, which knows the padded length.)"""
        return [full[: shape.vocabulary]]


class Qkv(Column):
    """q, k, v <-> per key-value group its query heads, its key and its value: [q…, k, v] repeated.

    Works on weights [outputs, hidden] and on biases [outputs].
    """

    def merge(self, parts: Sequence[Tensor], shape: Shape) -> Tensor:
        """Interleave by group."""
        grouped = [part.reshape(shape.groups, -1, shape.head_dim, *part.shape[1:]) for part in parts]
        return torch.cat(grouped, dim=1).reshape(-1, *parts[0].shape[1:])

    def split(self, full: Tensor, shape: Shape) -> list[Tensor]:
        """Take the groups apart."""
        queries = shape.heads // shape.groups
        grouped = full.reshape(shape.groups, queries + 2, shape.head_dim, *full.shape[1:])
        return [part.reshape(-1, *full.shape[1:]) for part in grouped.split([queries, 1, 1], dim=1)]


class GateUp(Column):
    """gate, up <-> their concatenation, of which every rank holds its slice of both."""

    def merge(self, parts: Sequence[Tensor], shape: Shape) -> Tensor:
        """gate above up."""
        return torch.cat(list(parts))

    def split(self, full: Tensor, shape: Shape) -> list[Tensor]:
        """The two halves."""
        return list(full.chunk(2))

    def shard(self, full: Tensor, rank: int, ranks: int) -> Tensor:
        """[gate of the rank; up of the rank]."""
        return torch.cat([half.chunk(ranks)[rank] for half in full.chunk(2)])

    def join(self, shards: Sequence[Tensor]) -> Tensor:
        """All gates, then all ups."""
        halves = [shard.chunk(2) for shard in shards]
        return torch.cat([half[0] for half in halves] + [half[1] for half in halves])


DIRECT, COLUMN, ROW, VOCABULARY, QKV, GATE_UP = Rule(), Column(), Row(), Vocabulary(), Qkv(), GateUp()


@dataclass(frozen=True)
class WeightRow:
    """One row of a table; `{layer}` in a name stands for the layer's number, counted from 0 over all stages."""

    megatron: tuple[str, ...]
    hf: tuple[str, ...]
    rule: Rule


EMBEDDING = "embedding.word_embeddings.weight"
HEAD = "output_layer.weight"
HF_EMBEDDING = "model.embed_tokens.weight"
HF_HEAD = "lm_head.weight"

_M, _H = "decoder.layers.{layer}.", "model.layers.{layer}."
_Q, _K, _V = (_H + f"self_attn.{part}_proj." for part in "qkv")

_DECODER = (
    WeightRow((EMBEDDING,), (HF_EMBEDDING,), VOCABULARY),
    WeightRow(
        (_M + "input_layernorm.weight", _M + "self_attention.linear_qkv.layer_norm_weight"),
        (_H + "input_layernorm.weight",),
        DIRECT,
    ),
    WeightRow((_M + "self_attention.linear_qkv.weight",), (_Q + "weight", _K + "weight", _V + "weight"), QKV),
    WeightRow((_M + "self_attention.linear_proj.weight",), (_H + "self_attn.o_proj.weight",), ROW),
    WeightRow(
        (_M + "pre_mlp_layernorm.weight", _M + "mlp.linear_fc1.layer_norm_weight"),
        (_H + "post_attention_layernorm.weight",),
        DIRECT,
    ),
    WeightRow(
        (_M + "mlp.linear_fc1.weight",), (_H + "mlp.gate_proj.weight", _H + "mlp.up_proj.weight"), GATE_UP
    ),
    WeightRow((_M + "mlp.linear_fc2.weight",), (_H + "mlp.down_proj.weight",), ROW),
    WeightRow(("decoder.final_layernorm.weight",), ("model.norm.weight",), DIRECT),
    WeightRow((HEAD,), (HF_HEAD,), VOCABULARY),
)
_QK_NORM = (
    WeightRow((_M + "self_attention.q_layernorm.weight",), (_H + "self_attn.q_norm.weight",), DIRECT),
    WeightRow((_M + "self_attention.k_layernorm.weight",), (_H + "self_attn.k_norm.weight",), DIRECT),
)


@dataclass(frozen=True)
class Family:
    """A model family: its table and what its layers have.

    Attributes:
        rows: the table; rows with `{layer}` are repeated for every layer.
        qk_layernorm: queries and keys are normalised.
        qkv_bias: the query, key and value projections have biases.
    """

    rows: tuple[WeightRow, ...]
    qk_layernorm: bool = False
    qkv_bias: bool = False


FAMILIES = {"qwen3": Family(_DECODER + _QK_NORM, qk_layernorm=True)}
"""Model type in config.json -> family."""


def family_of(model_type: str) -> Family:
    """The family of an HF `model_type`.

    Raises:
        ValueError: there is no table for it.
    """
    if model_type not in FAMILIES:
        raise ValueError(
            f"model type {model_type!r} has no weight map; known: {', '.join(FAMILIES)} "
            "(a new family is a table in megatron_trace/policy/weight_map.py)"
        )
    return FAMILIES[model_type]


def expand(family: Family, layers: int, *, tied: bool) -> list[WeightRow]:
    """The family's rows with every layer's number filled in, in HF order; without the output layer if tied."""

    def numbered(row: WeightRow, layer: int) -> WeightRow:
        fill = [tuple(name.format(layer=layer) for name in names) for names in (row.megatron, row.hf)]
        return WeightRow(fill[0], fill[1], row.rule)

    each = [row for row in family.rows if "{layer}" in row.hf[0]]
    once = [
        row for row in family.rows if "{layer}" not in row.hf[0] and not (tied and row.megatron[0] == HEAD)
    ]
    return once[:1] + [numbered(row, layer) for layer in range(layers) for row in each] + once[1:]
