"""The policy as vLLM runs it: the language model with the predictor head on its final hidden state.

vLLM returns log-probabilities, not hidden states. So `compute_logits` lets the prediction travel as the
log-probabilities of two reserved tokens, the last two rows of the vocabulary:

    logit[-2] = max(row) - 60,    logit[-1] = logit[-2] + predictor's logit

Neither carries probability mass, so the sampled token and its log-probability stay what they were, and
`SamplingParams(logprob_token_ids=...)` brings back the predictor's logit as a difference: no extra forward pass.
At the first token of a turn that is the prediction for the whole history before it.

Importing this module registers the model. A vLLM worker process imports it because `PolicyWorkerExtension` is its
`worker_extension_cls`; the process that configures the engine imports it itself.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file
from torch import nn
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.model_executor.models.qwen3 import Qwen3ForCausalLM
from vllm.model_executor.models.registry import ModelRegistry

from megatron_trace.rollout.weights import MODULUS, fingerprint

if TYPE_CHECKING:
    from vllm.config import VllmConfig

PREDICTOR_FILE = "predictor.safetensors"
"""The predictor head's file in the HF folder; without it every prediction is 0.5 until weights arrive."""

GAP = 60.0
"""How far, in logits, the reserved tokens lie below the row's maximum."""

LARGEST_LOGIT = 20.0
"""The predictor's logit is clamped to this size, so that it cannot reach up to tokens that matter."""


class PredictorHead(nn.Module):
    """Logit of the success probability from a final hidden state, in float32 whatever the model's dtype."""

    def __init__(self, hidden_size: int, width: int) -> None:
        """A head that predicts 0.5 for everything."""
        super().__init__()
        self.fc1 = nn.Linear(hidden_size, width, dtype=torch.float32)
        self.fc2 = nn.Linear(width, 1, dtype=torch.float32)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """[tokens, hidden] -> logits [tokens]."""
        return self.fc2(nn.functional.gelu(self.fc1(hidden.float()), approximate="tanh")).squeeze(-1)


class Qwen3WithPredictor(Qwen3ForCausalLM):
    """Qwen3 whose last two vocabulary rows carry the prediction."""

    def __init__(self, *, vllm_config: "VllmConfig", prefix: str = "") -> None:
        """`additional_config["predictor_hidden"]` is the width of the head's hidden layer."""
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        self.predictor = PredictorHead(
            self.config.hidden_size, vllm_config.additional_config["predictor_hidden"]
        )
        self.received = 0
        path = Path(vllm_config.model_config.model) / PREDICTOR_FILE
        if path.is_file():
            state = {name.removeprefix("predictor."): tensor for name, tensor in load_file(path).items()}
            self.predictor.load_state_dict(state)

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor | None:
        """[tokens, hidden] -> float32 logits [tokens, vocabulary]; None on ranks that do not sample."""
        logits = super().compute_logits(hidden_states)
        if logits is None:
            return None
        logits = logits.float()  # bfloat16 could not resolve a difference 60 below the maximum
        base = logits[:, :-2].amax(dim=-1) - GAP
        logits[:, -2] = base
        logits[:, -1] = base + self.predictor(hidden_states).clamp(-LARGEST_LOGIT, LARGEST_LOGIT)
        return logits

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """Load HF-named weights, `predictor.*` included; called for the checkpoint and for every update's chunks."""
        loaded = super().load_weights(self._with_output_layer(weights))
        return loaded | {f"predictor.{name}" for name, _ in self.predictor.named_parameters()}

    def _with_output_layer(
        self, weights: Iterable[tuple[str, torch.Tensor]]
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Add the output layer of a tied model: where vLLM repacks weights it is a copy that must be sent as well."""
        tied = None
        for name, tensor in weights:
            self.received = (self.received + fingerprint(name, tensor)) % MODULUS
            if self.config.tie_word_embeddings:
                if name == "lm_head.weight":
                    continue
                if name == "model.embed_tokens.weight":
                    tied = tensor
            yield name, tensor
        if tied is not None:
            yield "lm_head.weight", tied


class PolicyWorkerExtension:
    """Methods that vLLM mixes into its worker, callable by `collective_rpc`."""

    def take_fingerprint(self) -> int:
        """Fingerprint of all weights loaded since the last call."""
        model = self.model_runner.get_model()  # type: ignore[attr-defined]
        received, model.received = model.received, 0
        return received


ModelRegistry.register_model("Qwen3ForCausalLM", Qwen3WithPredictor)
if "ray" not in WeightTransferEngineFactory._registry:
    WeightTransferEngineFactory.register_engine(
        "ray", "megatron_trace.rollout.weight_transfer", "RayWeightTransferEngine"
    )
