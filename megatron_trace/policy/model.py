"""The policy as a Megatron-Core model: this rank's layers of the transformer, and the predictor on the last stage."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from megatron.core.models.gpt.gpt_layer_specs import (
    get_gpt_layer_local_spec,
    get_gpt_layer_with_transformer_engine_spec,
)
from megatron.core.transformer import TransformerConfig
from torch import Tensor

from megatron_trace.config import Config, Precision
from megatron_trace.learning.batches import Batch
from megatron_trace.policy.attention import FusedAttention
from megatron_trace.policy.distributed import Place
from megatron_trace.policy.hf import HFReader, read_config
from megatron_trace.policy.precision import has_transformer_engine, parameter_dtype
from megatron_trace.policy.predictor import PredictorHead, load_predictor
from megatron_trace.policy.vocab_parallel import vocab_parallel_logprob
from megatron_trace.policy.weight_map import Family, Shape, expand, family_of
from megatron_trace.policy.weights import ModelWeights

VOCABULARY_MULTIPLE = 64
RESERVED_ROWS = 2
"""The last rows of the vocabulary carry the prediction in the sampler and have no mass; here neither."""


@dataclass
class Scores:
    """What the last stage says of a micro-batch's n learned tokens and m anchors.

    Attributes:
        logprob: of the learned tokens, with gradient, float32 [n].
        entropy: of the policy at these tokens in nats, float32 [n].
        prediction: the predictor's logits at the anchors, with gradient, float32 [m].
    """

    logprob: Tensor
    entropy: Tensor
    prediction: Tensor


class PolicyModel(GPTModel):
    """GPTModel that returns scores of chosen tokens instead of all logits."""

    predictor: PredictorHead

    def __init__(self, *, real_vocabulary: int, temperature: float, **arguments: Any) -> None:
        """As GPTModel; `real_vocabulary` tokens are real, the rest of `vocab_size` is padding."""
        super().__init__(**arguments)
        self.real_vocabulary, self.temperature = real_vocabulary, temperature

    def forward(self, batch: Batch) -> Scores | Tensor:  # type: ignore[override]
        """Run this stage on a micro-batch; stages before the last return hidden states [s, b, hidden].

        Only the hidden states that speak of a learned token or an anchor reach the output layer or the predictor.
        """
        # Without an advantage the policy's gradient is zero. (Stages of a pipeline must all send one back.)
        pipelined = self.config.pipeline_model_parallel_size > 1
        with torch.set_grad_enabled(torch.is_grad_enabled() and (batch.teaches_policy or pipelined)):
            columns = torch.arange(batch.tokens.shape[1], device=batch.tokens.device).expand_as(batch.tokens)
            hidden = super().forward(input_ids=batch.tokens, position_ids=columns, attention_mask=None)
            if not self.post_process:
                return hidden
            logprob, entropy = self._logprob(hidden, batch)
        return Scores(logprob, entropy, self.predictor(hidden[batch.predict_column, batch.predict_row]))

    def _logprob(self, hidden: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Log-probability and entropy at the learned tokens, from the hidden states before them."""
        weight = (
            self.shared_embedding_or_output_weight() if self.share_embeddings_and_output_weights else None
        )
        before = hidden[batch.learn_column - 1, batch.learn_row]
        logits, _ = self.output_layer(before.unsqueeze(1), weight=weight)
        logits = logits.squeeze(1)
        group = parallel_state.get_tensor_model_parallel_group()
        return vocab_parallel_logprob(
            logits,
            batch.learned,
            temperature=self.temperature,
            start=group.rank() * logits.shape[1],
            vocabulary=self.real_vocabulary,
            group=group,
        )

    def _postprocess(self, hidden_states: Tensor, **_: Any) -> Tensor:
        # GPTModel would compute every position's logits here.
        return hidden_states


def transformer_config(hf: dict[str, Any], config: Config, family: Family) -> TransformerConfig:
    """Megatron's configuration of the model that `hf` (config.json) describes.

    Raises:
        ValueError: the tensor- or pipeline-parallel size does not divide heads or layers.
    """
    tensor, pipeline = config.parallel.tensor, config.parallel.pipeline
    if hf["num_key_value_heads"] % tensor or hf["intermediate_size"] % tensor:
        raise ValueError(
            f"parallel.tensor={tensor} must divide the {hf['num_key_value_heads']} key-value heads "
            f"and the MLP width {hf['intermediate_size']}"
        )
    if hf["num_hidden_layers"] % pipeline:
        raise ValueError(f"parallel.pipeline={pipeline} must divide the {hf['num_hidden_layers']} layers")
    dtype = parameter_dtype(config.precision)
    fp8 = config.precision.train is Precision.fp8
    return TransformerConfig(
        num_layers=hf["num_hidden_layers"],
        hidden_size=hf["hidden_size"],
        ffn_hidden_size=hf["intermediate_size"],
        num_attention_heads=hf["num_attention_heads"],
        num_query_groups=hf["num_key_value_heads"],
        kv_channels=hf.get("head_dim") or hf["hidden_size"] // hf["num_attention_heads"],
        layernorm_epsilon=hf["rms_norm_eps"],
        normalization="RMSNorm",
        qk_layernorm=family.qk_layernorm,
        add_qkv_bias=family.qkv_bias,
        add_bias_linear=False,
        gated_linear_unit=True,
        activation_func=torch.nn.functional.silu,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        tensor_model_parallel_size=tensor,
        pipeline_model_parallel_size=pipeline,
        params_dtype=dtype,
        pipeline_dtype=dtype,
        bf16=dtype is torch.bfloat16,
        fp8="hybrid" if fp8 else None,
        fp8_recipe=config.precision.fp8_recipe if fp8 else "delayed",
        # Micro-batches differ in length, so stages tell each other the shapes.
        variable_seq_lengths=True,
        moe_token_dispatcher_type="alltoall",
        # The loss is already divided by the global number of tokens: gradients are only summed.
        calculate_per_token_loss=True,
        perform_initialization=False,
        gradient_accumulation_fusion=False,
        masked_softmax_fusion=False,
        bias_activation_fusion=False,
    )


def build_model(config: Config, place: Place) -> tuple[PolicyModel, ModelWeights]:
    """This rank's part of the policy at `model.path`, its weights loaded, and the way to move them."""
    folder = Path(config.model.path)
    hf = read_config(folder)
    family, tied = family_of(hf["model_type"]), bool(hf.get("tie_word_embeddings", False))
    megatron = transformer_config(hf, config, family)
    multiple = VOCABULARY_MULTIPLE * place.tensor_size
    model = PolicyModel(
        config=megatron,
        transformer_layer_spec=_layer_spec(family),
        vocab_size=-(-hf["vocab_size"] // multiple) * multiple,
        real_vocabulary=hf["vocab_size"] - RESERVED_ROWS,
        temperature=config.rollout.temperature,
        max_sequence_length=hf["max_position_embeddings"],
        pre_process=place.pipeline == 0,
        post_process=place.last_stage,
        share_embeddings_and_output_weights=tied,
        position_embedding_type="rope",
        rotary_base=_rope_theta(hf),
    )
    model.to(device=place.device, dtype=parameter_dtype(config.precision))
    if place.last_stage:
        _add_predictor(model, config, place, folder)
    shape = Shape(
        groups=hf["num_key_value_heads"],
        heads=hf["num_attention_heads"],
        head_dim=megatron.kv_channels,
        vocabulary=hf["vocab_size"],
    )
    rows = expand(family, hf["num_hidden_layers"], tied=tied)
    first_layer = model.decoder.layers[0].layer_number - 1
    weights = ModelWeights(model, rows, shape, place, first_layer=first_layer, tied=tied)
    weights.load(HFReader(folder))
    return model, weights


def _layer_spec(family: Family) -> Any:
    if has_transformer_engine():
        return get_gpt_layer_with_transformer_engine_spec(qk_layernorm=family.qk_layernorm)
    spec = get_gpt_layer_local_spec(qk_layernorm=family.qk_layernorm, normalization="RMSNorm")
    spec.submodules.self_attention.submodules.core_attention = FusedAttention
    return spec


def _rope_theta(hf: dict[str, Any]) -> float:
    """Base of the rotary embedding: transformers 5 writes `rope_parameters`, older ones `rope_theta`."""
    parameters = hf.get("rope_parameters") or hf.get("rope_scaling") or {}
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    if kind != "default":
        raise ValueError(f"rope_type={kind} is not supported; only the default rotary embedding is")
    return parameters.get("rope_theta", hf.get("rope_theta", 10000.0))


def _add_predictor(model: PolicyModel, config: Config, place: Place, folder: Path) -> None:
    hidden = model.config.hidden_size
    head = PredictorHead(hidden, config.learning.predictor_hidden, config.run.seed)
    load_predictor(head, folder)
    model.predictor = head.to(place.device)
    for parameter in head.parameters():
        # Left out of the gradient norm, so that it, and the clip, are the policy's alone.
        parameter.shared = True
