"""Attention over packed trees as a module of Megatron's, with Transformer Engine or without."""

from typing import Any

from megatron.core import parallel_state
from megatron.core.tensor_parallel import gather_from_sequence_parallel_region
from megatron.core.transformer.module import MegatronModule
from torch import Tensor

from megatron_trace.policy.precision import uses_transformer_engine
from megatron_trace.policy.span_kernels import (
    attend_by_span,
    attend_by_transformer_engine,
    gather_paths,
    transformer_engine_attention,
)
from megatron_trace.policy.spans import spans_of


class TreeAttention(MegatronModule):
    """Replaces Megatron's `DotProductAttention` and Transformer Engine's.

    The keys and values of each path are gathered, and then attended to by a stock kernel. With
    context parallelism every rank first gathers those of all ranks, and attends from its own
    queries, as in Llama 3 (arXiv 2407.21783, section 3.3.2).
    """

    def __init__(
        self, config: Any, layer_number: int, attn_mask_type: Any, attention_type: str, **_: Any
    ) -> None:
        super().__init__(config=config)
        self.engine = None
        if uses_transformer_engine(config.params_dtype):
            ranks = config.tensor_model_parallel_size
            self.engine = transformer_engine_attention(
                config.num_attention_heads // ranks,
                config.num_query_groups // ranks,
                config.kv_channels,
            )

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor, **_: Any
    ) -> Tensor:
        """Attention output [s, 1, heads·head_dim] from query, key, value [s, 1, ·, head_dim].

        Args:
            attention_mask: not a mask but what `spans.described` made of the micro-batch; Megatron
                passes it through unchanged.
        """
        size = self.config.context_parallel_size
        rank = 0
        if size > 1:
            rank = parallel_state.get_context_parallel_rank()
            group = parallel_state.get_context_parallel_group()
            key = gather_from_sequence_parallel_region(key, group=group)
            value = gather_from_sequence_parallel_region(value, group=group)
        spans = spans_of(attention_mask, rank, size, query.device)
        key, value = gather_paths(key, spans), gather_paths(value, spans)
        query = query.squeeze(1)
        if self.engine is None:
            mixed = attend_by_span(query, key, value, spans)
        else:
            mixed = attend_by_transformer_engine(self.engine, query, key, value, spans)
        return mixed.flatten(1).unsqueeze(1)
