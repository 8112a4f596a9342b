"""Where the parameters of a model lie in a Megatron distributed checkpoint.

Megatron-Core stacks the same parameter of all layers into one tensor, with an axis for the layers
before the parameter's own axes, and likewise for the experts:
`decoder.layers.mlp.experts.experts.linear_fc1.weight` has the shape [layers, experts, 2·width,
hidden]. A model that has both dense and sparse layers is not stacked: its layers have names of
their own, under `decoder.layers.3.…`. Source: `sharded_state_dict` of
megatron/core/transformer/transformer_block.py and moe/experts.py.
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
class Location:
    """Where the parameter of one row of the weight map lies.

    Attributes:
        key: name of the checkpoint's tensor.
        index: number of the layer and of the expert, for those axes that the tensor has.
        axes: the sizes of these axes.
        shape: the whole Megatron parameter, vocabulary padding included. The tensor's shape is
            `axes` + `shape`.
    """

    key: str
    index: tuple[int, ...]
    axes: tuple[int, ...]
    shape: tuple[int, ...]


def layer_of(row: WeightRow) -> int | None:
    """The row's layer, counted from 0; None for embedding, final norm and output layer."""
    match = _LAYER.fullmatch(row.megatron[0])
    return int(match[1]) if match else None


def stacks_layers(hf: dict[str, Any]) -> bool:
    """Whether Megatron stacks the layers of the model of config.json `hf`: they are all alike."""
    return len(set(sparse_layers(hf))) == 1


def locate(row: WeightRow, hf: dict[str, Any], *, stacked: bool) -> Location:
    """The location of a row.

    Args:
        row: of the expanded weight map.
        hf: config.json.
        stacked: the checkpoint stacks equal layers.
    """
    shape = _megatron_shape(row, hf)
    # The last name is Transformer Engine's. Checkpoints use it also when Megatron's local modules
    # wrote them.
    key = row.megatron[-1]
    local = _LAYER.fullmatch(row.megatron[0])
    if not local:
        return Location(key, (), (), shape)
    layer, rest = int(local[1]), key.split(".", 3)[3]
    index: tuple[int, ...] = ()
    axes: tuple[int, ...] = ()
    prefix = f"decoder.layers.{layer}."
    if stacked:
        prefix = "decoder.layers."
        index, axes = (layer,), (hf["num_hidden_layers"],)
    if expert := _EXPERT.fullmatch(local[2]):
        rest = f"mlp.experts.experts.{expert[2]}"
        index, axes = (*index, int(expert[1])), (*axes, number_of_experts(hf))
    return Location(prefix + rest, index, axes, shape)


def _megatron_shape(row: WeightRow, hf: dict[str, Any]) -> tuple[int, ...]:
    """The shape of the row's whole Megatron parameter."""
    # Every rule concatenates its parts along the first axis. Applying the rule itself to meta
    # tensors would import torch's compiler.
    parts = [hf_shape(name, hf) for name in row.hf]
    shape = (sum(part[0] for part in parts), *parts[0][1:])
    if row.rule is VOCABULARY:
        shape = (padded_vocabulary(shape[0]), *shape[1:])
    return shape


def empty_states(locations: Iterable[Location]) -> set[str]:
    """Names of the empty objects that a model requires beside the tensors of its modules.

    Megatron's modules ask for the `_extra_state` of linear layers; Transformer Engine's ask for
    those of norms and attention as well. FP8 scales would be there. None stands for "there are
    none" in both.
    """
    modules = set()
    for location in locations:
        module = location.key.rsplit(".", 1)[0]
        modules.add((module, location.index, location.axes))
        if module.endswith(".linear_qkv"):
            attention = module.replace(".linear_qkv", ".core_attention")
            modules.add((attention, location.index, location.axes))
    return {
        f"{module}._extra_state/shard_{_dotted(index or (0,))}_{_dotted(axes or (1,))}"
        for module, index, axes in modules
        if module.startswith("decoder.") and not module.endswith(".router")
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
        "q_proj": queries,
        "k_proj": keys,
        "v_proj": keys,
        "gate_proj": mlp,
        "up_proj": mlp,
        "gate": number_of_experts(hf),
        "embed_tokens": hf["vocab_size"],
        "lm_head": hf["vocab_size"],
    }
    inputs = {"o_proj": queries, "down_proj": mlp}
    rows = outputs.get(module, hidden)
    return (rows,) if kind == "bias" else (rows, inputs.get(module, hidden))
