"""One head for trainer and sampler: the same formula, in the dtype that each side needs."""

import torch

from megatron_trace.models.predictor import PredictorHead, sampling_dtype

CPU = torch.device("cpu")


def taught_head(hidden: int = 192, width: int = 48) -> PredictorHead:
    head = PredictorHead(hidden, width, seed=3)
    noise = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=noise))
    return head


def states(count: int, hidden: int = 192) -> torch.Tensor:
    return torch.randn(count, hidden, generator=torch.Generator().manual_seed(5))


def test_the_trainer_s_logits_are_those_of_the_layers_in_float32() -> None:
    head, hidden = taught_head(), states(40)
    inner = torch.nn.functional.gelu(head.fc1(hidden), approximate="tanh")
    assert torch.equal(head(hidden), head.fc2(inner).squeeze(-1))


def test_the_weights_are_float32_under_any_default_dtype() -> None:
    torch.set_default_dtype(torch.bfloat16)
    try:
        head = PredictorHead(8, 4)
    finally:
        torch.set_default_dtype(torch.float32)
    assert {parameter.dtype for parameter in head.parameters()} == {torch.float32}
    assert head(torch.ones(3, 8, dtype=torch.bfloat16)).dtype == torch.float32


def test_without_a_seed_and_with_one_an_untaught_head_predicts_one_half() -> None:
    for seed in (None, 1):
        assert torch.equal(PredictorHead(8, 4, seed)(states(5, 8)), torch.zeros(5))


def test_no_gradient_reaches_the_hidden_states() -> None:
    head, hidden = taught_head(), states(3).requires_grad_()
    head(hidden).sum().backward()
    assert hidden.grad is None and head.fc1.weight.grad is not None


def test_in_the_sampler_s_dtype_the_rest_of_the_batch_does_not_show() -> None:
    head, hidden = taught_head(), states(257)
    together = head(hidden, sampling_dtype(CPU))
    alone = torch.cat([head(row.unsqueeze(0), sampling_dtype(CPU)) for row in hidden])
    assert torch.equal(together, alone) and together.dtype == torch.float32
    assert torch.allclose(together, head(hidden), atol=1e-5)
