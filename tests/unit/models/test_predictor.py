"""One head for trainer and sampler: the same formula, in the dtype that each side needs."""

import torch

from megatron_trace.models.predictor import PredictorHead, sampling_dtype

CPU = torch.device("cpu")


def taught_head(hidden: int = 192) -> PredictorHead:
    head = PredictorHead(hidden)
    noise = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=noise))
    return head


def states(count: int, hidden: int = 192) -> torch.Tensor:
    return torch.randn(count, hidden, generator=torch.Generator().manual_seed(5))


def test_a_logit_is_the_bias_and_the_weighted_sum_of_the_hidden_state() -> None:
    head, hidden = taught_head(), states(40)
    right = (hidden.double() * head.weight.double()).sum(1) + head.bias.double()
    assert head(hidden).shape == (40,)
    torch.testing.assert_close(head(hidden).double(), right, rtol=0, atol=1e-5)


def test_the_weights_are_float32_under_any_default_dtype() -> None:
    torch.set_default_dtype(torch.bfloat16)
    try:
        head = PredictorHead(8)
    finally:
        torch.set_default_dtype(torch.float32)
    assert {parameter.dtype for parameter in head.parameters()} == {torch.float32}
    assert head(torch.ones(3, 8, dtype=torch.bfloat16)).dtype == torch.float32


def test_an_untaught_head_predicts_one_half() -> None:
    assert torch.sigmoid(PredictorHead(8)(states(5, 8))).tolist() == [0.5] * 5


def test_no_gradient_reaches_the_hidden_states() -> None:
    head, hidden = taught_head(), states(3).requires_grad_()
    head(hidden).sum().backward()
    assert hidden.grad is None and head.weight.grad is not None


def test_in_the_sampler_s_dtype_the_rest_of_the_batch_does_not_show() -> None:
    head, hidden = taught_head(), states(257)
    together = head(hidden, sampling_dtype(CPU))
    alone = torch.cat([head(row.unsqueeze(0), sampling_dtype(CPU)) for row in hidden])
    assert torch.equal(together, alone) and together.dtype == torch.float32
    assert torch.allclose(together, head(hidden), atol=1e-5)
