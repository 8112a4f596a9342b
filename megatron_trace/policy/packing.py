"""What the layout of the train ranks, and the model, ask of packed micro-batches."""

from typing import Any

from megatron_trace.config import Config
from megatron_trace.learning.packing import Layout, Packing
from megatron_trace.models.architecture import head_width, key_value_heads, number_of_experts
from megatron_trace.models.layout import padding
from megatron_trace.policy.distributed import ParallelState


def layout(config: Config, hf: dict[str, Any], parallel: ParallelState) -> Layout:
    """What this rank's place in the layout asks of the micro-batches of a step."""
    return Layout(
        packing=packing(config, hf),
        rank=parallel.data,
        ranks=parallel.data_size,
        equal_lengths=parallel.pipeline_size > 1,
    )


def packing(config: Config, hf: dict[str, Any]) -> Packing:
    """How the rows of a step are packed, for the settings and the model of config.json `hf`."""
    parallel, batching = config.parallel, config.learning.batching
    return Packing(
        capacity=batching.micro_batch_tokens,
        pack=batching.pack,
        merge=batching.merge,
        total_multiple=padding(config),
        count_multiple=parallel.pipeline if parallel.interleave > 1 else 1,
        attention_scale=attention_scale(hf),
    )


def attention_scale(hf: dict[str, Any]) -> float:
    """Tokens of history at which a layer's attention costs a token as much as its matrices.

    A history of t tokens costs 4·t·heads·head_dim operations, and P weights cost 2·P. Both are
    equal at t = P / (2·heads·head_dim).
    """
    hidden, queries = hf["hidden_size"], hf["num_attention_heads"] * head_width(hf)
    attention = 2 * hidden * (queries + key_value_heads(hf) * head_width(hf))
    width = hf["intermediate_size"]
    if number_of_experts(hf):
        width = hf["moe_intermediate_size"] * hf["num_experts_per_tok"]
    return (attention + 3 * hidden * width) / (2 * queries)
