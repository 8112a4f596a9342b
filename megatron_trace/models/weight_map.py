"""Which Hugging Face tensors make which Megatron-Core parameter: one table for each model family.

Loading, weight sync, conversion and export all read these tables. A family is a set of rows; a row
(`WeightRow`) names a parameter, its HF tensors and the rule between them (`weight_rules.py`).
"""

from dataclasses import dataclass
from typing import Any

from megatron_trace.models.architecture import (
    head_width,
    key_value_heads,
    number_of_experts,
    sparse_layers,
)
from megatron_trace.models.weight_rules import (
    DIRECT,
    GATE_UP,
    QKV,
    ROW,
    VOCABULARY,
    Shape,
    WeightRow,
)

EMBEDDING = "embedding.word_embeddings.weight"
HEAD = "output_layer.weight"
HF_EMBEDDING = "model.embed_tokens.weight"
HF_HEAD = "lm_head.weight"

_LAYER = "decoder.layers.{layer}."
_ATTENTION_MODULE = _LAYER + "self_attention."
_LOCAL_EXPERT = _LAYER + "mlp.experts.local_experts.{expert}."
_GROUPED_EXPERTS = _LAYER + "mlp.experts."
_HF_LAYER = "model.layers.{layer}."
_HF_ATTENTION = _HF_LAYER + "self_attn."
_HF_EXPERT = _HF_LAYER + "mlp.experts.{expert}."

_FIRST = (WeightRow((EMBEDDING,), (HF_EMBEDDING,), VOCABULARY),)
_LAST = (WeightRow(("decoder.final_layernorm.weight",), ("model.norm.weight",), DIRECT),)
_OUTPUT = (WeightRow((HEAD,), (HF_HEAD,), VOCABULARY),)


def _qkv(kind: str) -> WeightRow:
    """The row of the query, key and value projections' `kind`, weight or bias."""
    hf = tuple(f"{_HF_ATTENTION}{part}_proj.{kind}" for part in "qkv")
    return WeightRow((f"{_ATTENTION_MODULE}linear_qkv.{kind}",), hf, QKV)


_ATTENTION = (
    WeightRow(
        (_LAYER + "input_layernorm.weight", _ATTENTION_MODULE + "linear_qkv.layer_norm_weight"),
        (_HF_LAYER + "input_layernorm.weight",),
        DIRECT,
    ),
    _qkv("weight"),
    WeightRow((_ATTENTION_MODULE + "linear_proj.weight",), (_HF_ATTENTION + "o_proj.weight",), ROW),
)
_QKV_BIAS = (_qkv("bias"),)
_QK_NORM = (
    WeightRow(
        (_ATTENTION_MODULE + "q_layernorm.weight",), (_HF_ATTENTION + "q_norm.weight",), DIRECT
    ),
    WeightRow(
        (_ATTENTION_MODULE + "k_layernorm.weight",), (_HF_ATTENTION + "k_norm.weight",), DIRECT
    ),
)
_DENSE = (
    WeightRow(
        (_LAYER + "pre_mlp_layernorm.weight", _LAYER + "mlp.linear_fc1.layer_norm_weight"),
        (_HF_LAYER + "post_attention_layernorm.weight",),
        DIRECT,
    ),
    WeightRow(
        (_LAYER + "mlp.linear_fc1.weight",),
        (_HF_LAYER + "mlp.gate_proj.weight", _HF_LAYER + "mlp.up_proj.weight"),
        GATE_UP,
    ),
    WeightRow((_LAYER + "mlp.linear_fc2.weight",), (_HF_LAYER + "mlp.down_proj.weight",), ROW),
)
_SPARSE = (
    WeightRow(
        (_LAYER + "pre_mlp_layernorm.weight",),
        (_HF_LAYER + "post_attention_layernorm.weight",),
        DIRECT,
    ),
    WeightRow((_LAYER + "mlp.router.weight",), (_HF_LAYER + "mlp.gate.weight",), DIRECT),
)
_EXPERTS = (
    WeightRow(
        (_LOCAL_EXPERT + "linear_fc1.weight", _GROUPED_EXPERTS + "linear_fc1.weight{expert}"),
        (_HF_EXPERT + "gate_proj.weight", _HF_EXPERT + "up_proj.weight"),
        GATE_UP,
    ),
    WeightRow(
        (_LOCAL_EXPERT + "linear_fc2.weight", _GROUPED_EXPERTS + "linear_fc2.weight{expert}"),
        (_HF_EXPERT + "down_proj.weight",),
        ROW,
    ),
)


@dataclass(frozen=True)
class Family:
    """A model family: the parameters of its layers.

    Attributes:
        attention: rows of every layer's attention.
        dense: rows of a layer whose MLP is one network.
        sparse: rows of a layer whose MLP is a mixture of experts, without the experts.
        experts: rows of each expert.
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
    """All rows of one model, with the numbers of layers and experts filled in.

    Args:
        family: the model's.
        hf: its config.json.
        tied: the output layer is the embedding and has no row.

    Returns:
        embedding, layer after layer with the experts of each, final norm, output layer. Exports and
        weight sync send tensors in this order.
    """
    rows = list(_FIRST)
    for layer, sparse in enumerate(sparse_layers(hf)):
        in_layer = family.attention + (family.sparse if sparse else family.dense)
        rows += [_numbered(row, layer) for row in in_layer]
        for expert in range(number_of_experts(hf) if sparse else 0):
            rows += [_numbered(row, layer, expert) for row in family.experts]
    rows += _LAST
    if not tied:
        rows += _OUTPUT
    return rows


def _numbered(row: WeightRow, layer: int, expert: int = 0) -> WeightRow:
    def filled(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name.format(layer=layer, expert=expert) for name in names)

    return WeightRow(filled(row.megatron), filled(row.hf), row.rule)
