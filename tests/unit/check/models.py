"""config.json of two small models, and settings that fit them."""

from typing import Any

from megatron_trace.config import Config, Precision, WeightBackend

DENSE: dict[str, Any] = {
    "model_type": "qwen3",
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 32,
}
SPARSE: dict[str, Any] = DENSE | {
    "model_type": "qwen3_moe",
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 128,
    "norm_topk_prob": True,
}


def settings(**changed: Any) -> Config:
    """The defaults, apart from `section__name=value`; in float32, on CPUs, with histories of 4,096
    tokens.
    """
    config = Config()
    config.precision.train = Precision.float32
    config.rollout.weight_backend = WeightBackend.ray
    config.rollout.max_history_tokens = 4096
    for name, value in changed.items():
        *sections, key = name.split("__")
        holder: Any = config
        for section in sections:
            holder = getattr(holder, section)
        assert hasattr(holder, key), name
        setattr(holder, key, value)
    return config
