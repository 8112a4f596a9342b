"""The policy as vLLM runs it: the language model with the predictor head on its final hidden state.

vLLM returns log-probabilities, not hidden states. So `compute_logits` lets the prediction, and the
entropy if it is needed, travel as the log-probabilities of two tokens that it adds to the model's
(carriers.py). `SamplingParams(logprob_token_ids=...)` brings them back: no extra forward pass. At
the first token of a turn the prediction is that for the whole history before it.

Embedding and output layer have the model's rows and no more, so the weights are loaded as they are.
Only vLLM's sampler sees the larger vocabulary (`launch.make_room_for_carriers`).

Importing this module registers the model families, and what the CPU needs. A vLLM worker process
imports it because `PolicyWorkerExtension` is its `worker_extension_cls`; the process that
configures the engine imports it itself.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.model_executor.layers.fused_moe.routed_experts import RoutedExperts
from vllm.model_executor.models.llama import LlamaForCausalLM
from vllm.model_executor.models.qwen2 import Qwen2ForCausalLM
from vllm.model_executor.models.qwen3 import Qwen3ForCausalLM
from vllm.model_executor.models.qwen3_moe import Qwen3MoeForCausalLM
from vllm.model_executor.models.registry import ModelRegistry
from vllm.platforms import current_platform
from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend

from megatron_trace.models.predictor import PredictorHead, load_predictor, sampling_dtype
from megatron_trace.rollout.fingerprint import MODULUS, fingerprint
from megatron_trace.rollout.vllm import cpu_kernels
from megatron_trace.rollout.vllm.carriers import with_carriers
from megatron_trace.supervise import stacks

if TYPE_CHECKING:
    from vllm.config import VllmConfig


class WithPredictor(nn.Module):
    """Mixed into a language model of vLLM: two logits after the vocabulary carry the prediction."""

    def __init__(self, *, vllm_config: "VllmConfig", prefix: str = "") -> None:
        """As vLLM's model, with two settings of ours in `vllm_config.additional_config`.

        They are `temperature`, that of sampling, and `entropies`, whether they are needed.
        """
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        settings = vllm_config.additional_config
        self.predictor = PredictorHead(self.config.hidden_size)
        self.temperature: float = settings["temperature"]
        self.entropies: bool = settings["entropies"]
        self.received = 0
        # Not by `load_weights`: vLLM loads the model's safetensors, and this is a file of ours.
        load_predictor(self.predictor, Path(vllm_config.model_config.model))

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor | None:
        """[tokens, hidden] -> float32 logits [tokens, vocabulary + 2]; None on ranks that do not
        sample.
        """
        logits = super().compute_logits(hidden_states)
        if logits is None:
            return None
        predicted = self.predictor(hidden_states, sampling_dtype(hidden_states.device))
        return with_carriers(logits, predicted, self.temperature, entropies=self.entropies)

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """Load HF-named weights, `predictor.*` included.

        vLLM calls it for the HF folder and for every part of an update.
        """
        loaded = super().load_weights(self._with_output_layer(weights))
        return loaded | {f"predictor.{name}" for name, _ in self.predictor.named_parameters()}

    def _with_output_layer(
        self, weights: Iterable[tuple[str, torch.Tensor]]
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the weights, and after them the output layer of a tied model.

        If vLLM repacks weights, the output layer is a copy of the embedding, not the same tensor.
        An update of the embedding alone would leave the old output layer in place.
        """
        tied = None
        for name, tensor in weights:
            self.received = (self.received + fingerprint(name, tensor)) % MODULUS
            if self.config.tie_word_embeddings:
                # The trainer sends it too; the copy below is loaded instead of it.
                if name == "lm_head.weight":
                    continue
                if name == "model.embed_tokens.weight":
                    tied = tensor
            yield name, tensor
        if tied is not None:
            yield "lm_head.weight", tied


class Qwen3WithPredictor(WithPredictor, Qwen3ForCausalLM):
    """Qwen3 with the predictor."""


class Qwen3MoeWithPredictor(WithPredictor, Qwen3MoeForCausalLM):
    """Qwen3-MoE with the predictor."""

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """As for the other families; on a CPU every update packs the experts again.

        vLLM 0.32 packs experts for the CPU's kernel only when it makes that kernel. If the kernel
        of the first loading stayed, an update's weights would lie unpacked where it reads packed
        ones.
        """
        if current_platform.is_cpu():
            for module in self.modules():
                if isinstance(module, RoutedExperts) and module.w13_weight.is_meta:
                    module.quant_method.moe_kernel = None
        return super().load_weights(weights)


class Qwen2WithPredictor(WithPredictor, Qwen2ForCausalLM):
    """Qwen2 and Qwen2.5 with the predictor."""


class LlamaWithPredictor(WithPredictor, LlamaForCausalLM):
    """Llama 3 with the predictor."""


class PolicyWorkerExtension:
    """Methods that vLLM mixes into its worker, callable by `collective_rpc`."""

    def take_fingerprint(self) -> int:
        """Fingerprint of all weights loaded since the last call."""
        model = self.model_runner.get_model()  # type: ignore[attr-defined]
        received, model.received = model.received, 0
        return received

    @torch.inference_mode()
    def embed_prompts(self, prompts: list[list[int]]) -> list[list[float]]:
        """Mean of the input embeddings of each prompt's tokens, [prompts, hidden].

        Every tensor-parallel rank takes part, since the embedding is split over them.
        """
        model = self.model_runner.get_model()  # type: ignore[attr-defined]
        means = []
        for ids in prompts:
            tokens = torch.tensor(ids, device=self.device)  # type: ignore[attr-defined]
            embedded = model.embed_input_ids(tokens)
            means.append(embedded.mean(dim=0, dtype=torch.float32).tolist())
        return means


for family in (Qwen3WithPredictor, Qwen3MoeWithPredictor, Qwen2WithPredictor, LlamaWithPredictor):
    ModelRegistry.register_model(family.__name__.replace("WithPredictor", "ForCausalLM"), family)
WeightTransferEngineFactory.register_engine(
    "ray", "megatron_trace.rollout.vllm.weight_transfer", "RayWeightTransferEngine"
)
register_backend(
    AttentionBackendEnum.CPU_ATTN, "megatron_trace.rollout.vllm.cpu_attention.SmallBlocks"
)
if current_platform.is_cpu():
    cpu_kernels.install()
stacks.register("engine", watch=True)
