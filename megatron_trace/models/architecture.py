"""Facts about a model from its config.json, and refused models. Imports without torch."""

from typing import Any

ARCHITECTURES = {
    "Qwen3ForCausalLM": "qwen3",
    "Qwen3MoeForCausalLM": "qwen3_moe",
    "Qwen2ForCausalLM": "qwen2",
    "LlamaForCausalLM": "llama",
}
"""Class in config.json's `architectures` -> its `model_type`."""

VOCABULARY_MULTIPLE = 1024
"""Vocabulary tables are padded to a multiple of this, so a checkpoint fits every layout."""

ROPE_TYPES: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "yarn": ("factor",),
}
"""Kinds of rotary embeddings, and the numbers that config.json must give for each."""

# Key in config.json -> the only supported value, which an absent key means as well, and the
# families that read the key. A key that a family does not read may have any value.
_QWEN3 = ("qwen3", "qwen3_moe")
_ONLY: dict[str, tuple[Any, tuple[str, ...]]] = {
    "hidden_act": ("silu", tuple(ARCHITECTURES.values())),
    "attention_bias": (False, (*_QWEN3, "llama")),
    "mlp_bias": (False, ("llama",)),
    "use_sliding_window": (False, (*_QWEN3, "qwen2")),
    "quantization_config": (None, tuple(ARCHITECTURES.values())),
}


_COUNTS = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("vocab_size", "max_position_embeddings"),
)
"""Keys that every config.json must give, as a number of at least 1."""

_EXPERT_COUNTS = ("num_experts_per_tok", "moe_intermediate_size")
"""The same for a model with experts."""

_OPTIONAL_COUNTS = (
    *("num_key_value_heads", "head_dim", "num_experts", "num_local_experts"),
    *("decoder_sparse_step",),
)
_OPTIONAL: dict[str, tuple[type, ...]] = {
    "rms_norm_eps": (int, float),
    "rope_theta": (int, float),
    "rope_parameters": (dict,),
    "rope_scaling": (dict,),
    "layer_types": (list,),
    "mlp_only_layers": (list,),
    "tie_word_embeddings": (bool,),
    "norm_topk_prob": (bool,),
}
"""Keys that may be absent or null, with their types."""


def check_keys(hf: dict[str, Any]) -> None:
    """Refuse a config.json that lacks a number or has something else in its place.

    Raises:
        ValueError: naming the key and its value.
    """
    required = _COUNTS + (_EXPERT_COUNTS if hf.get("model_type") == "qwen3_moe" else ())
    for key in (*required, *_OPTIONAL_COUNTS):
        value = hf.get(key)
        if value is None and key in _OPTIONAL_COUNTS:
            continue
        if type(value) is not int or value < 1:
            raise ValueError(f"config.json: {key}={value!r} must be a number of at least 1")
    for key, kinds in _OPTIONAL.items():
        value = hf.get(key)
        if value is not None and type(value) not in kinds:
            names = " or ".join(kind.__name__ for kind in kinds)
            raise ValueError(f"config.json: {key}={value!r} must be of type {names}")
    heads, groups = hf["num_attention_heads"], hf.get("num_key_value_heads") or 1
    if heads % groups:
        raise ValueError(
            f"config.json: num_key_value_heads={groups} must divide num_attention_heads ({heads})"
        )


def check_architecture(hf: dict[str, Any]) -> None:
    """Refuse a model that would be computed differently from `transformers`.

    Args:
        hf: its config.json.

    Raises:
        ValueError: naming config.json's key, its value and what is supported.
    """
    family = hf.get("model_type")
    if family not in ARCHITECTURES.values():
        raise ValueError(
            f"config.json: model_type={family!r} is not supported; "
            f"supported is {', '.join(ARCHITECTURES.values())}"
        )
    for key, (value, readers) in _ONLY.items():
        if family in readers and hf.get(key, value) != value:
            # The model would train, but on another function than the one that it was published as.
            raise ValueError(
                f"config.json: {key}={hf[key]!r} is not supported; supported is {value!r}"
            )
    if set(hf.get("layer_types") or ()) - {"full_attention"}:
        raise ValueError(
            f"config.json: layer_types={hf['layer_types']} is not supported; supported is full_attention in all"
        )
    _check_rope(hf)
    if number_of_experts(hf):
        _check_experts(hf)


def _check_rope(hf: dict[str, Any]) -> None:
    name = "rope_parameters" if hf.get("rope_parameters") else "rope_scaling"
    parameters = hf.get(name) or {}
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    if kind not in ROPE_TYPES or any(isinstance(value, dict) for value in parameters.values()):
        raise ValueError(
            f"config.json: {name}={parameters} is not supported; "
            f"supported is one rope_type for all layers, of {', '.join(ROPE_TYPES)}"
        )
    for key in ROPE_TYPES[kind]:
        if not isinstance(parameters.get(key), (int, float)):
            raise ValueError(f"config.json: {name} of rope_type {kind} must give {key}, a number")
    partial = parameters.get("partial_rotary_factor", hf.get("partial_rotary_factor", 1.0))
    if partial not in (None, 1.0):
        raise ValueError(
            f"config.json: partial_rotary_factor={partial} is not supported; supported is 1.0"
        )


def _check_experts(hf: dict[str, Any]) -> None:
    experts, chosen = number_of_experts(hf), hf["num_experts_per_tok"]
    if not 1 <= chosen <= experts:
        raise ValueError(
            f"config.json: num_experts_per_tok={chosen} must be 1 to num_experts ({experts})"
        )
    if chosen == 1 and hf.get("norm_topk_prob", False):
        # The one chosen expert's share of itself is 1: the router would never learn, and Megatron
        # refuses it.
        raise ValueError(
            "config.json: norm_topk_prob=True with num_experts_per_tok=1 is not supported"
        )
    if not any(sparse_layers(hf)):
        raise ValueError(
            f"config.json: no layer has experts with decoder_sparse_step={hf.get('decoder_sparse_step', 1)} "
            f"and mlp_only_layers={hf.get('mlp_only_layers')}; such a model is a qwen3"
        )


def sparse_layers(hf: dict[str, Any]) -> list[bool]:
    """For every layer whether its MLP is a mixture of experts."""
    step, dense = hf.get("decoder_sparse_step", 1), hf.get("mlp_only_layers") or ()
    experts = number_of_experts(hf) > 0
    layers = range(hf["num_hidden_layers"])
    return [experts and layer not in dense and (layer + 1) % step == 0 for layer in layers]


def number_of_experts(hf: dict[str, Any]) -> int:
    """Experts of a sparse layer; 0 for a dense model.

    Raises:
        ValueError: config.json of a family with experts does not give the number.
    """
    if hf["model_type"] != "qwen3_moe":
        return 0
    # Published folders have the first key; transformers 5 writes the second.
    for key in ("num_experts", "num_local_experts"):
        if hf.get(key):
            return hf[key]
    raise ValueError("config.json: num_experts is missing; a qwen3_moe has at least one")


def head_width(hf: dict[str, Any]) -> int:
    """Width of one attention head; without `head_dim` what `transformers` assumes."""
    assumed = 128 if hf["model_type"] == "qwen3" else hf["hidden_size"] // hf["num_attention_heads"]
    return hf.get("head_dim") or assumed


def key_value_heads(hf: dict[str, Any]) -> int:
    """Key-value heads; by default as many as query heads."""
    return hf.get("num_key_value_heads") or hf["num_attention_heads"]


def padded_vocabulary(vocab_size: int) -> int:
    """Rows of Megatron's vocabulary tables: `vocab_size` and zero rows to fill the multiple."""
    return -(-vocab_size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE
