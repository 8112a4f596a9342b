"""Where the parts of a model lie in a Megatron distributed checkpoint, whatever the layout that wrote it.

Megatron-Core keeps one tensor for the same parameter of all layers, with an axis for the layers before the
parameter's own, and likewise one for the experts: `decoder.layers.mlp.experts.experts.linear_fc1.weight` has the
shape [layers, experts, 2·width, hidden]. Layers of a model that has both dense and sparse ones stand apart, under
`decoder.layers.3.…`. Source: `sharded_state_dict` of megatron/core/transformer/transformer_block.py and moe/experts.py.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from megatron_trace.models.architecture import (
    head_width,
    key_value_heads,
    number_of_experts,
    padded_vocabulary,
    sparse_layers,
)
from megatron_trace.models.weight_rules import VOCABULARY, WeightRow

_LAYER = re.compile(r"decoder\.layers\.(\d+)\.(.*)")
_EXPERT = re.compile(r"mlp\.experts\.local_experts\.(\d+)\.(.*)")


@dataclass(frozen=True)
class Stored:
    """Where one row of the weight map lies.

    Attributes:
        key: the checkpoint's tensor.
        index: number of the layer and of the expert, as far as `key` has these axes.
        axes: the sizes of these axes.
        shape: the whole Megatron parameter, vocabulary padding included; the tensor's shape is `axes` + `shape`.
    """

    key: str
    index: tuple[int, ...]
    axes: tuple[int, ...]
    shape: tuple[int, ...]


def layer_of(row: WeightRow) -> int | None:
    """Number of the layer that the row belongs to."""
    match = _LAYER.fullmatch(row.megatron[0])
    return int(match[1]) if match else None


def stacks_layers(hf: dict[str, Any]) -> bool:
    """Whether Megatron keeps the layers of the model of config.json `hf` in one tensor: they are all alike."""
    return len(set(sparse_layers(hf))) == 1


def place_of(row: WeightRow, hf: dict[str, Any], *, stacked: bool) -> Stored:
    """The place of a row.

    Args:
        row: of the expanded weight map.
        hf: config.json.
        stacked: the checkpoint keeps equal layers in one tensor.
    """
    # Every rule puts its parts one above the other. (Trying it on meta tensors would import torch's compiler.)
    parts = [hf_shape(name, hf) for name in row.hf]
    shape = (sum(part[0] for part in parts), *parts[0][1:])
    if row.rule is VOCABULARY:
        shape = (padded_vocabulary(shape[0]), *shape[1:])
    key = row.megatron[-1]
    index: tuple[int, ...] = ()
    axes: tuple[int, ...] = ()
    local = _LAYER.fullmatch(row.megatron[0])
    if local:
        layer, rest = int(local[1]), key.split(".", 3)[3]
        prefix = "decoder.layers." if stacked else f"decoder.layers.{layer}."
        if stacked:
            index, axes = (layer,), (hf["num_hidden_layers"],)
        if expert := _EXPERT.fullmatch(local[2]):
            rest = f"mlp.experts.experts.{expert[2]}"
            index, axes = (*index, int(expert[1])), (*axes, number_of_experts(hf))
        key = prefix + rest
    return Stored(key, index, axes, shape)


def empty_states(places: Iterable[Stored]) -> set[str]:
    """Objects that say nothing, but that a model insists on finding beside the tensors of its modules.

    Megatron's modules ask for the `_extra_state` of the linear layers, Transformer Engine's also for those of norms
    and attention: it is where FP8 scales would be. None stands for "there are none" in both.
    """
    modules = {(place.key.rsplit(".", 1)[0], place.index, place.axes) for place in places}
    modules |= {
        (name.replace(".linear_qkv", ".core_attention"), index, axes)
        for name, index, axes in modules
        if name.endswith(".linear_qkv")
    }
    return {
        f"{name}._extra_state/shard_{_dotted(index or (0,))}_{_dotted(axes or (1,))}"
        for name, index, axes in modules
        if name.startswith("decoder.") and not name.endswith(".router")
    }


def _dotted(numbers: Iterable[int]) -> str:
    return ".".join(map(str, numbers))


def hf_shape(name: str, hf: dict[str, Any]) -> tuple[int, ...]:
    """The shape that the HF tensor `name` has in the model that config.json `hf` describes."""
    hidden, width = hf["hidden_size"], head_width(hf)
    queries, keys = hf["num_attention_heads"] * width, key_value_heads(hf) * width
    mlp = hf["moe_intermediate_size"] if ".experts." in name else hf["intermediate_size"]
    module, kind = name.split(".")[-2:]
    if module.endswith("norm"):
        return (width,) if module in ("q_norm", "k_norm") else (hidden,)
    outputs = {
        **{"q_proj": queries, "k_proj": keys, "v_proj": keys, "gate_proj": mlp, "up_proj": mlp},
        **{
            "gate": number_of_experts(hf),
            "embed_tokens": hf["vocab_size"],
            "lm_head": hf["vocab_size"],
        },
    }.get(module, hidden)
    inputs = {"o_proj": queries, "down_proj": mlp}.get(module, hidden)
    return (outputs,) if kind == "bias" else (outputs, inputs)
