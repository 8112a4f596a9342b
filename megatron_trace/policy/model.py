"""The policy as a Megatron-Core model: this rank's layers of the transformer, and the predictor on the last stage."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_decoder_block_spec
from megatron.core.tensor_parallel import gather_from_sequence_parallel_region
from megatron.core.transformer import TransformerConfig
from megatron.core.transformer.moe import moe_layer, moe_utils
from torch import Tensor

from megatron_trace.config import Config, Precision
from megatron_trace.learning.batches import Batch
from megatron_trace.policy.architecture import (
    VOCABULARY_MULTIPLE,
    check_architecture,
    head_width,
    key_value_heads,
    number_of_experts,
    padded_vocabulary,
    sparse_layers,
)
from megatron_trace.policy.attention import FusedAttention
from megatron_trace.policy.distributed import Place
from megatron_trace.policy.folders import companions, is_checkpoint
from megatron_trace.policy.hf import HFReader, read_config
from megatron_trace.policy.norm import TorchRMSNorm
from megatron_trace.policy.precision import FP8_MULTIPLE, has_transformer_engine, parameter_dtype
from megatron_trace.policy.predictor import PredictorHead, load_predictor
from megatron_trace.policy.rope import put_into, rotary_frequencies
from megatron_trace.policy.vocab_parallel import vocab_parallel_logprob
from megatron_trace.policy.weight_map import Family, expand, family_of, shape_of
from megatron_trace.policy.weights import ModelWeights

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
        if self.config.sequence_parallel and self.post_process:
            # The output layer sees only chosen positions of the whole sequence, on all tensor-parallel ranks the same.
            self.output_layer.sequence_parallel, self.output_layer.allreduce_dgrad = False, True

    def forward(self, batch: Batch) -> Scores | Tensor:  # type: ignore[override]
        """Run this stage on a micro-batch; stages before the last return hidden states [s, b, hidden].

        Only the hidden states that speak of a learned token or an anchor reach the output layer or the predictor.
        """
        # Without an advantage the policy's gradient is zero. (Stages of a pipeline, and ranks that exchange tokens
        # for their experts, must all send one back.)
        coupled = self.config.pipeline_model_parallel_size > 1 or self.config.expert_model_parallel_size > 1
        with torch.set_grad_enabled(torch.is_grad_enabled() and (batch.teaches_policy or coupled)):
            tokens = self._whole_slices(batch.tokens)
            columns = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
            hidden = super().forward(input_ids=tokens, position_ids=columns, attention_mask=None)
            if not self.post_process:
                return hidden
            if self.config.sequence_parallel:
                hidden = gather_from_sequence_parallel_region(hidden, tensor_parallel_output_grad=False)
            logprob, entropy = self._logprob(hidden, batch)
        return Scores(logprob, entropy, self.predictor(hidden[batch.predict_column, batch.predict_row]))

    def _whole_slices(self, tokens: Tensor) -> Tensor:
        """Under sequence parallelism, `tokens` padded on the right so that every rank gets a slice of equal length."""
        if not self.config.sequence_parallel:
            return tokens
        multiple = self.config.tensor_model_parallel_size * (FP8_MULTIPLE if self.config.fp8 else 1)
        return torch.nn.functional.pad(tokens, (0, -tokens.shape[1] % multiple))

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
        ValueError: a parallel size does not divide what it must.
    """
    tensor, pipeline = config.parallel.tensor, config.parallel.pipeline
    _check_sizes(hf, config)
    dtype = parameter_dtype(config.precision)
    fp8 = config.precision.train is Precision.fp8
    return TransformerConfig(
        num_layers=hf["num_hidden_layers"],
        hidden_size=hf["hidden_size"],
        ffn_hidden_size=hf["intermediate_size"],
        num_attention_heads=hf["num_attention_heads"],
        num_query_groups=key_value_heads(hf),
        kv_channels=head_width(hf),
        layernorm_epsilon=hf.get("rms_norm_eps", 1e-6),
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
        **(_expert_settings(hf, config) if number_of_experts(hf) else {}),
    )


def _expert_settings(hf: dict[str, Any], config: Config) -> dict[str, Any]:
    sparse = sparse_layers(hf)
    return {
        "num_moe_experts": number_of_experts(hf),
        "moe_ffn_hidden_size": hf["moe_intermediate_size"],
        # As a list Megatron takes the layers for different ones, and checkpoints them one by one.
        "moe_layer_freq": 1 if all(sparse) else [int(layer) for layer in sparse],
        "moe_router_topk": hf["num_experts_per_tok"],
        # The weights of the chosen experts: shares of all experts' softmax, or of the chosen ones' alone.
        "moe_router_pre_softmax": not hf.get("norm_topk_prob", False),
        "moe_router_load_balancing_type": "none",
        "moe_router_dtype": "fp32",
        "moe_grouped_gemm": has_transformer_engine(),
        "expert_model_parallel_size": config.parallel.expert,
        # Otherwise every tensor-parallel rank would send the same tokens to the experts.
        "sequence_parallel": config.parallel.tensor > 1,
    }


def _check_sizes(hf: dict[str, Any], config: Config) -> None:
    tensor, pipeline, expert = config.parallel.tensor, config.parallel.pipeline, config.parallel.expert
    divided = {
        "the key-value heads": key_value_heads(hf),
        "the MLP width": hf["intermediate_size"],
        "the padded vocabulary's multiple": VOCABULARY_MULTIPLE,
    }
    if number_of_experts(hf):
        divided["the width of an expert"] = hf["moe_intermediate_size"]
    for name, size in divided.items():
        if size % tensor:
            raise ValueError(f"parallel.tensor={tensor} must divide {name} ({size})")
    if hf["num_hidden_layers"] % pipeline:
        raise ValueError(f"parallel.pipeline={pipeline} must divide the {hf['num_hidden_layers']} layers")
    if expert > 1 and (not number_of_experts(hf) or number_of_experts(hf) % expert):
        raise ValueError(f"parallel.expert={expert} must divide the model's {number_of_experts(hf)} experts")


def build_model(config: Config, place: Place) -> tuple[PolicyModel, ModelWeights]:
    """This rank's part of the policy at `model.path`, and the way to move its weights; a HF folder's are loaded."""
    folder = Path(config.model.path)
    hf = read_config(companions(folder))
    check_architecture(hf)
    family, tied = family_of(hf["model_type"]), bool(hf.get("tie_word_embeddings", False))
    megatron = transformer_config(hf, config, family)
    model = PolicyModel(
        config=megatron,
        transformer_layer_spec=_block_spec(megatron),
        vocab_size=padded_vocabulary(hf["vocab_size"]),
        real_vocabulary=hf["vocab_size"] - RESERVED_ROWS,
        temperature=config.rollout.temperature,
        max_sequence_length=hf["max_position_embeddings"],
        pre_process=place.pipeline == 0,
        post_process=place.last_stage,
        share_embeddings_and_output_weights=tied,
        position_embedding_type="rope",
    )
    put_into(model, *rotary_frequencies(hf))
    model.to(device=place.device, dtype=parameter_dtype(config.precision))
    if place.last_stage:
        _add_predictor(model, config, place, folder)
    first_layer = model.decoder.layers[0].layer_number - 1
    weights = ModelWeights(
        model,
        expand(family, hf, tied=tied),
        shape_of(hf),
        place,
        first_layer=first_layer,
        first_expert=place.expert * number_of_experts(hf) // place.expert_size,
        tied=tied,
    )
    if not is_checkpoint(folder):
        weights.load(HFReader(folder))
    return model, weights


def _block_spec(config: TransformerConfig) -> Any:
    """Megatron's modules for the layers of this pipeline stage."""
    if has_transformer_engine():
        return get_gpt_decoder_block_spec(config, use_transformer_engine=True)
    # Megatron 0.16 reads this name without having defined it where Transformer Engine is not installed.
    moe_utils.te_general_gemm = getattr(moe_utils, "te_general_gemm", None)
    spec = get_gpt_decoder_block_spec(config, use_transformer_engine=False, normalization="RMSNorm")
    spec.layer_norm = TorchRMSNorm
    for layer in (layer.submodules for layer in spec.layer_specs):
        attention = layer.self_attention.submodules
        layer.input_layernorm = layer.pre_mlp_layernorm = TorchRMSNorm
        attention.core_attention = FusedAttention
        if config.qk_layernorm:
            attention.q_layernorm = attention.k_layernorm = TorchRMSNorm
        if layer.mlp.module is moe_layer.MoELayer:
            # In checkpoints this spec would name the norm as if it were fused into a dense layer's linear, unlike
            # Transformer Engine's.
            layer.sharded_state_dict_keys_map = {"input_layernorm.": "self_attention.linear_qkv.layer_norm_"}
    return spec


def _add_predictor(model: PolicyModel, config: Config, place: Place, folder: Path) -> None:
    hidden = model.config.hidden_size
    head = PredictorHead(hidden, config.learning.predictor_hidden, config.run.seed)
    load_predictor(head, folder)
    model.predictor = head.to(place.device)
    for parameter in head.parameters():
        # Left out of the gradient norm, so that it, and the clip, are the policy's alone.
        parameter.shared = True
