"""Which Hugging Face tensors make which Megatron-Core parameter: one table per model family.

Loading, weight sync, conversion and export all read these tables, so they cannot disagree. A family is its rows; a
row is the parameter's names (local spec, then Transformer Engine's, where layernorms are fused into the next linear
and experts are grouped), the HF names, and the rule between them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from megatron_trace.models.architecture import (
    head_width,
    key_value_heads,
    number_of_experts,
    sparse_layers,
)
from megatron_trace.models.architecture import padded_vocabulary as padded_vocabulary


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
        grouped = [
            part.reshape(shape.groups, -1, shape.head_dim, *part.shape[1:]) for part in parts
        ]
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


DIRECT, COLUMN, ROW, VOCABULARY, QKV, GATE_UP = (
    Rule(),
    Column(),
    Row(),
    Vocabulary(),
    Qkv(),
    GateUp(),
)


@dataclass(frozen=True)
class WeightRow:
    """One row of a table; in a name `{layer}` stands for the layer's number, counted from 0 over all stages, and
    `{expert}` for the expert's in that layer, counted from 0 over all expert-parallel ranks."""

    megatron: tuple[str, ...]
    hf: tuple[str, ...]
    rule: Rule


EMBEDDING = "embedding.word_embeddings.weight"
HEAD = "output_layer.weight"
HF_EMBEDDING = "model.embed_tokens.weight"
HF_HEAD = "lm_head.weight"

_M, _H = "decoder.layers.{layer}.", "model.layers.{layer}."
_Q, _K, _V = (_H + f"self_attn.{part}_proj." for part in "qkv")
_LOCAL, _GROUPED = _M + "mlp.experts.local_experts.{expert}.", _M + "mlp.experts."
_EXPERT = _H + "mlp.experts.{expert}."

_FIRST = (WeightRow((EMBEDDING,), (HF_EMBEDDING,), VOCABULARY),)
_LAST = (WeightRow(("decoder.final_layernorm.weight",), ("model.norm.weight",), DIRECT),)
_OUTPUT = (WeightRow((HEAD,), (HF_HEAD,), VOCABULARY),)

_ATTENTION = (
    WeightRow(
        (_M + "input_layernorm.weight", _M + "self_attention.linear_qkv.layer_norm_weight"),
        (_H + "input_layernorm.weight",),
        DIRECT,
    ),
    WeightRow(
        (_M + "self_attention.linear_qkv.weight",),
        (_Q + "weight", _K + "weight", _V + "weight"),
        QKV,
    ),
    WeightRow((_M + "self_attention.linear_proj.weight",), (_H + "self_attn.o_proj.weight",), ROW),
)
_QKV_BIAS = (
    WeightRow(
        (_M + "self_attention.linear_qkv.bias",), (_Q + "bias", _K + "bias", _V + "bias"), QKV
    ),
)
_QK_NORM = (
    WeightRow(
        (_M + "self_attention.q_layernorm.weight",), (_H + "self_attn.q_norm.weight",), DIRECT
    ),
    WeightRow(
        (_M + "self_attention.k_layernorm.weight",), (_H + "self_attn.k_norm.weight",), DIRECT
    ),
)
_DENSE = (
    WeightRow(
        (_M + "pre_mlp_layernorm.weight", _M + "mlp.linear_fc1.layer_norm_weight"),
        (_H + "post_attention_layernorm.weight",),
        DIRECT,
    ),
    WeightRow(
        (_M + "mlp.linear_fc1.weight",),
        (_H + "mlp.gate_proj.weight", _H + "mlp.up_proj.weight"),
        GATE_UP,
    ),
    WeightRow((_M + "mlp.linear_fc2.weight",), (_H + "mlp.down_proj.weight",), ROW),
)
_SPARSE = (
    WeightRow(
        (_M + "pre_mlp_layernorm.weight",), (_H + "post_attention_layernorm.weight",), DIRECT
    ),
    WeightRow((_M + "mlp.router.weight",), (_H + "mlp.gate.weight",), DIRECT),
)
_EXPERTS = (
    WeightRow(
        (_LOCAL + "linear_fc1.weight", _GROUPED + "linear_fc1.weight{expert}"),
        (_EXPERT + "gate_proj.weight", _EXPERT + "up_proj.weight"),
        GATE_UP,
    ),
    WeightRow(
        (_LOCAL + "linear_fc2.weight", _GROUPED + "linear_fc2.weight{expert}"),
        (_EXPERT + "down_proj.weight",),
        ROW,
    ),
)


@dataclass(frozen=True)
class Family:
    """A model family: what its layers hold.

    Attributes:
        attention: the rows of every layer's attention.
        dense: the rows of a layer whose MLP is one network.
        sparse: the rows of a layer whose MLP is a mixture of experts, the experts left out.
        experts: the rows of each of its experts.
        qk_layernorm: queries and keys are normalised.
        qkv_bias: the query, key and value projections have biases.
    """

    attention: tuple[WeightRow, ...]
    dense: tuple[WeightRow, ...] = _DENSE
    sparse: tuple[WeightRow, ...] = ()
    experts: tuple[WeightRow, ...] = ()
    qk_layernorm: bool = False
    qkv_bias: bool = False


FAMILIES = {
    "qwen3": Family(_ATTENTION + _QK_NORM, qk_layernorm=True),
    "qwen3_moe": Family(_ATTENTION + _QK_NORM, sparse=_SPARSE, experts=_EXPERTS, qk_layernorm=True),
    "qwen2": Family(_ATTENTION + _QKV_BIAS, qkv_bias=True),
    "llama": Family(_ATTENTION),
}
"""Model type in config.json -> family."""


def family_of(model_type: str) -> Family:
    """The family of an HF `model_type`.

    Raises:
        ValueError: there is no table for it.
    """
    if model_type not in FAMILIES:
        raise ValueError(
            f"model type {model_type!r} has no weight map; known: {', '.join(FAMILIES)} "
            "(a new family is a table in megatron_trace/models/weight_map.py)"
        )
    return FAMILIES[model_type]


def shape_of(hf: dict[str, Any]) -> Shape:
    """The sizes that the rules need, from config.json."""
    return Shape(
        groups=key_value_heads(hf),
        heads=hf["num_attention_heads"],
        head_dim=head_width(hf),
        vocabulary=hf["vocab_size"],
    )


def expand(family: Family, hf: dict[str, Any], *, tied: bool) -> list[WeightRow]:
    """All rows of one model, the numbers of layers and experts filled in.

    Args:
        family: the model's.
        hf: its config.json.
        tied: the output layer is the embedding and has no row.

    Returns:
        embedding, layer after layer with the experts of each, final norm, output layer.
    """
    rows = list(_FIRST)
    for layer, sparse in enumerate(sparse_layers(hf)):
        rows += [
            _numbered(row, layer)
            for row in family.attention + (family.sparse if sparse else family.dense)
        ]
        for expert in range(number_of_experts(hf) if sparse else 0):
            rows += [_numbered(row, layer, expert) for row in family.experts]
    return rows + list(_LAST) + ([] if tied else list(_OUTPUT))


def _numbered(row: WeightRow, layer: int, expert: int = 0) -> WeightRow:
    megatron, hf = (
        tuple(name.format(layer=layer, expert=expert) for name in names)
        for names in (row.megatron, row.hf)
    )
    return WeightRow(megatron, hf, row.rule)
