"""The numbers of a model that a plan computes with, from its config.json. Imports without torch."""

from dataclasses import dataclass
from typing import Any

from megatron_trace.models.architecture import (
    head_width,
    key_value_heads,
    number_of_experts,
    padded_vocabulary,
    sparse_layers,
)


@dataclass(frozen=True)
class Shape:
    """Widths and counts of a model.

    Attributes:
        kv_heads: key (or value) heads; Megatron's query groups.
        head_width: width of one head.
        ffn_width, expert_ffn_width: hidden widths of an MLP and of one expert.
        moe_layers: for every layer whether its MLP is a mixture of experts.
        vocabulary, padded_vocabulary: rows of the Hugging Face tables, and of Megatron's.
        qk_norm, qkv_bias: whether queries and keys are normalised, and whether their projection has
            a bias.
    """

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    ffn_width: int
    moe_layers: tuple[bool, ...]
    experts: int
    experts_per_token: int
    expert_ffn_width: int
    vocabulary: int
    padded_vocabulary: int
    tied_embeddings: bool
    qk_norm: bool
    qkv_bias: bool

    @classmethod
    def of(cls, hf: dict[str, Any]) -> "Shape":
        """The shape of the model that `hf` (config.json) describes, after `check_architecture`."""
        experts = number_of_experts(hf)
        return cls(
            hidden=hf["hidden_size"],
            layers=hf["num_hidden_layers"],
            heads=hf["num_attention_heads"],
            kv_heads=key_value_heads(hf),
            head_width=head_width(hf),
            ffn_width=hf["intermediate_size"],
            moe_layers=tuple(sparse_layers(hf)),
            experts=experts,
            experts_per_token=hf["num_experts_per_tok"] if experts else 0,
            expert_ffn_width=hf["moe_intermediate_size"] if experts else 0,
            vocabulary=hf["vocab_size"],
            padded_vocabulary=padded_vocabulary(hf["vocab_size"]),
            tied_embeddings=bool(hf.get("tie_word_embeddings", False)),
            # config.json does not name them: they are in the model's code.
            qk_norm=hf["model_type"] in ("qwen3", "qwen3_moe"),
            qkv_bias=hf["model_type"] == "qwen2",
        )

    @property
    def query_width(self) -> int:
        """Width of all query heads."""
        return self.heads * self.head_width

    @property
    def key_width(self) -> int:
        """Width of all key heads; all value heads have the same."""
        return self.kv_heads * self.head_width

    @property
    def attention_weights(self) -> int:
        """Entries of a layer's two attention matrices."""
        return self.hidden * (2 * self.query_width + 2 * self.key_width)

    def mlp_weights(self, layer: int) -> int:
        """Entries of the matrices of a layer's MLP, all experts included."""
        if self.moe_layers[layer]:
            return 3 * self.hidden * self.expert_ffn_width * self.experts
        return 3 * self.hidden * self.ffn_width

    @property
    def weights(self) -> int:
        """Parameters of the policy as its Hugging Face folder has them: without padding and
        predictor.
        """
        vectors = 2 * self.hidden + (2 * self.head_width if self.qk_norm else 0)
        vectors += self.query_width + 2 * self.key_width if self.qkv_bias else 0
        total = self.hidden
        for layer, is_moe in enumerate(self.moe_layers):
            router = self.hidden * self.experts * is_moe
            total += self.attention_weights + vectors + self.mlp_weights(layer) + router
        tables = 1 if self.tied_embeddings else 2
        return total + self.vocabulary * self.hidden * tables

    @property
    def active_weights(self) -> int:
        """Entries of the matrices that one token meets in all layers; only the experts that are
        chosen for it.
        """
        # Embeddings are looked up, not multiplied, and the output layer is counted apart (`flops`).
        inner = 0
        for is_moe in self.moe_layers:
            inner += self.expert_ffn_width * self.experts_per_token if is_moe else self.ffn_width
        return self.layers * self.attention_weights + 3 * self.hidden * inner
