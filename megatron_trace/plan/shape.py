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
    """Widths and counts.

    Attributes:
        query, key: widths of all query heads, and of all key (or value) heads.
        sparse: for every layer whether its MLP is a mixture of experts.
        vocabulary: rows of Megatron's tables, padding included; `real_vocabulary` without it.
        norm_heads, bias: whether queries and keys are normalised, and whether their projection has a bias.
    """

    hidden: int
    layers: int
    heads: int
    groups: int
    head: int
    ffn: int
    sparse: tuple[bool, ...]
    experts: int
    chosen: int
    expert_ffn: int
    vocabulary: int
    real_vocabulary: int
    tied: bool
    norm_heads: bool
    bias: bool

    @classmethod
    def of(cls, hf: dict[str, Any]) -> "Shape":
        """Of the model that `hf` (config.json) describes, which `check_architecture` has let pass."""
        experts = number_of_experts(hf)
        return cls(
            hidden=hf["hidden_size"],
            layers=hf["num_hidden_layers"],
            heads=hf["num_attention_heads"],
            groups=key_value_heads(hf),
            head=head_width(hf),
            ffn=hf["intermediate_size"],
            sparse=tuple(sparse_layers(hf)),
            experts=experts,
            chosen=hf["num_experts_per_tok"] if experts else 0,
            expert_ffn=hf["moe_intermediate_size"] if experts else 0,
            vocabulary=padded_vocabulary(hf["vocab_size"]),
            real_vocabulary=hf["vocab_size"],
            tied=bool(hf.get("tie_word_embeddings", False)),
            norm_heads=hf["model_type"] in ("qwen3", "qwen3_moe"),
            bias=hf["model_type"] == "qwen2",
        )

    @property
    def query(self) -> int:
        """Width of all query heads."""
        return self.heads * self.head

    @property
    def key(self) -> int:
        """Width of all key heads, which is that of all value heads."""
        return self.groups * self.head

    @property
    def attention_weights(self) -> int:
        """Entries of a layer's two attention matrices."""
        return self.hidden * (2 * self.query + 2 * self.key)

    def mlp_weights(self, layer: int) -> int:
        """Entries of the matrices of a layer's MLP, all experts included."""
        if self.sparse[layer]:
            return 3 * self.hidden * self.expert_ffn * self.experts
        return 3 * self.hidden * self.ffn

    @property
    def weights(self) -> int:
        """Parameters of the whole policy without padding and predictor, as its Hugging Face folder has them."""
        vectors = 2 * self.hidden + (2 * self.head if self.norm_heads else 0)
        vectors += self.query + 2 * self.key if self.bias else 0
        layers = sum(
            self.attention_weights
            + vectors
            + self.mlp_weights(layer)
            + self.hidden * self.experts * sparse
            for layer, sparse in enumerate(self.sparse)
        )
        return layers + self.hidden + self.real_vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def active_weights(self) -> int:
        """Entries of the matrices that one token meets in all layers: of the experts only those chosen for it."""
        dense = sum(
            3 * self.hidden * (self.expert_ffn * self.chosen if sparse else self.ffn)
            for sparse in self.sparse
        )
        return self.layers * self.attention_weights + dense
