"""The faster functions on the CPU compute what vLLM's own do."""

import pytest
import torch
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.v1.sample.sampler import Sampler

from megatron_trace.rollout.vllm.cpu_kernels import KernelRMSNorm, all_at_once, one_by_one


@pytest.mark.parametrize(
    "asked",
    [
        {row: [10, 11] for row in range(4)},
        {0: [10, 11], 1: [10, 11], 2: [9, 11], 3: [10, 11]},
        {0: [10, 11], 1: [10], 3: [10, 11]},
    ],
    ids=["all the same", "one has others", "one asks nothing"],
)
def test_the_same_log_probabilities(asked: dict[int, list[int]]) -> None:
    logprobs = torch.randn(4, 12).log_softmax(-1)
    sampled = torch.tensor([3, 0, 11, 7])
    ours = all_at_once(Sampler(), logprobs, asked, sampled)
    theirs = one_by_one(Sampler(), logprobs, asked, sampled)
    assert ours is not None and theirs is not None
    assert torch.equal(ours.logprob_token_ids, theirs.logprob_token_ids)
    assert torch.equal(ours.logprobs, theirs.logprobs)
    assert ours.selected_token_ranks.shape == theirs.selected_token_ranks.shape


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_norms(dtype: torch.dtype) -> None:
    with set_current_vllm_config(VllmConfig()):
        norm = KernelRMSNorm(32, dtype=dtype)
    torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
    states = torch.randn(5, 64, dtype=dtype)
    # As the heads of queries lie in the output of one layer.
    heads = states[:, :32].view(5, 1, 32)
    assert not heads.is_contiguous()
    torch.testing.assert_close(norm.forward_cpu(heads), norm.forward_native(heads))
    x, residual = torch.randn(2, 5, 32, dtype=dtype)
    ours = norm.forward_cpu(x.clone(), residual.clone())
    theirs = norm.forward_native(x, residual)
    torch.testing.assert_close(ours, theirs)
