"""Two things that vLLM 0.32 does slowly on a CPU, done faster.

- RMSNorm is several calls of PyTorch. vLLM builds its kernel for the CPU too, but calls it on GPUs
  alone. The sums of the kernel round differently: by about 1e-6.
- The log-probabilities of `logprob_token_ids` are looked up request by request in Python. Here all
  requests ask for the same two tokens, the carriers.
"""

import torch
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.v1.outputs import LogprobsTensors
from vllm.v1.sample.sampler import Sampler

one_by_one = Sampler.gather_specific_token_logprobs
"""vLLM's own lookup."""


def install() -> None:
    """Let vLLM use both, in this process."""
    RMSNorm.register_oot(KernelRMSNorm, name="RMSNorm")
    Sampler.gather_specific_token_logprobs = all_at_once


class KernelRMSNorm(RMSNorm):
    """RMSNorm by vLLM's kernel where all is float32; other dtypes would round in other places."""

    def forward_cpu(
        self, x: torch.Tensor, residual: torch.Tensor | None = None
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """RMSNorm of `x` [..., hidden], or of `x + residual`.

        Returns:
            the normalized tensor and, with a `residual`, the sum. They may take the memory of the
            arguments.
        """
        plain = self.has_weight and self.variance_size_override is None
        if not plain or not x.dtype == self.weight.dtype == torch.float32:
            return super().forward_cpu(x, residual)
        x = x.contiguous()
        if residual is None:
            normalized = torch.empty_like(x)
            torch.ops._C.rms_norm(normalized, x, self.weight, self.variance_epsilon)
            return normalized
        # In place: `x` becomes the normalized tensor, `residual` the sum.
        torch.ops._C.fused_add_rms_norm(x, residual, self.weight, self.variance_epsilon)
        return x, residual


def all_at_once(
    sampler: Sampler,
    logprobs: torch.Tensor,
    logprob_token_ids: dict[int, list[int]],
    sampled: torch.Tensor,
) -> LogprobsTensors | None:
    """`Sampler.gather_specific_token_logprobs`.

    Args:
        logprobs: of all tokens, [requests, vocabulary].
        logprob_token_ids: by a request's number, the k tokens that it asks for.
        sampled: token ids [requests].

    Returns:
        [requests, 1 + k], the sampled token first. The ranks, which nobody reads here, are 0.
    """
    asked = list(logprob_token_ids.values())
    if len(asked) != len(sampled) or any(ids != asked[0] for ids in asked):
        return one_by_one(sampler, logprobs, logprob_token_ids, sampled)
    same = torch.tensor(asked[0]).expand(len(sampled), -1)
    ids = torch.cat([sampled.unsqueeze(-1), same], dim=-1)
    return LogprobsTensors(
        logprob_token_ids=ids.to(torch.int32),
        logprobs=logprobs.gather(-1, ids),
        selected_token_ranks=torch.zeros_like(sampled),
    )
