"""What the two carriers bring comes back, whatever the temperature, and the others do not notice."""

import pytest
import torch

from megatron_trace.rollout.vllm import carriers
from megatron_trace.rollout.vllm.carriers import read_entropies, read_prediction, with_carriers

PREDICTED = torch.tensor([-3.0, 0.0, 1.7, 30.0])
TEMPERATURES = [0.0, 0.2, 0.7, 1.0, 1.5, 50.0]


def made_logits(vocabulary: int = 1000) -> torch.Tensor:
    """Rows from nearly uniform to nearly certain."""
    noise = torch.randn(4, vocabulary, generator=torch.Generator().manual_seed(0))
    return noise * torch.tensor([[0.1], [2.0], [6.0], [25.0]]) + 8.0


def logprobs(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """As the sampler has them: float32, scaled by the temperature, greedily not at all."""
    return (logits / (temperature or 1.0)).log_softmax(-1)


def reference(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """Entropies in float64, without the carriers."""
    exact = logprobs(logits.double(), temperature)
    return -(exact.exp() * exact).sum(-1)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_entropies_are_those_of_the_distribution_that_is_sampled_from(temperature: float) -> None:
    logits = made_logits()
    whole = with_carriers(logits, PREDICTED, temperature, entropies=True)
    entropies = read_entropies(logprobs(whole, temperature)[:, -2].tolist())
    # The same float32 carries 60 and, at low temperatures, large logits beside the entropy.
    resolution = 2e-5 / min(temperature or 1.0, 1.0)
    assert torch.tensor(entropies).sub(reference(logits, temperature)).abs().max() < resolution
    assert min(entropies) >= 0.0


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("entropies", [False, True])
def test_predictions_are_the_same_with_and_without_entropies(
    temperature: float, entropies: bool
) -> None:
    whole = with_carriers(made_logits(), PREDICTED, temperature, entropies=entropies)
    rows = logprobs(whole, temperature)
    found = [read_prediction(float(row[-2]), float(row[-1])) for row in rows]
    assert found == pytest.approx(PREDICTED.clamp(-20, 20).sigmoid().tolist(), abs=1e-5)


@pytest.mark.parametrize("entropies", [False, True])
@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("vocabulary", [1, 2, 17, 1000])
def test_no_token_of_the_model_is_lost_or_less_likely(
    temperature: float, entropies: bool, vocabulary: int
) -> None:
    for logits in (made_logits(vocabulary), torch.full((4, vocabulary), -7.5)):
        whole = with_carriers(logits, PREDICTED, temperature, entropies=entropies)
        assert torch.equal(whole[:, :vocabulary], logits)
        before, after = logprobs(logits, temperature), logprobs(whole, temperature)
        torch.testing.assert_close(after[:, :vocabulary], before, rtol=0, atol=1e-6)
        # A token this far below the likeliest is not sampled once in 10^17 tokens.
        likeliest = after[:, :vocabulary].amax(-1, keepdim=True)
        assert (after[:, vocabulary:] <= likeliest - 39.9).all()


def test_logits_of_low_precision_are_carried_in_float32() -> None:
    logits = made_logits().bfloat16()
    whole = with_carriers(logits, PREDICTED, 1.0, entropies=True)
    assert whole.dtype == torch.float32 and whole.is_contiguous()
    assert torch.equal(whole[:, :-2], logits.float())


def test_without_entropies_the_carriers_hang_below_the_maximum() -> None:
    logits = made_logits()
    whole = with_carriers(logits, PREDICTED, 0.5, entropies=False)
    base = logits.amax(-1) - 30.0
    assert torch.equal(whole[:, -2], base)
    assert torch.equal(whole[:, -1], base + 0.5 * PREDICTED.clamp(-20, 20))


def test_a_large_batch_is_done_some_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = with_carriers(made_logits(), PREDICTED, 0.7, entropies=True)
    monkeypatch.setattr(carriers, "CHUNK_ELEMENTS", 3000)
    parts = with_carriers(made_logits(), PREDICTED, 0.7, entropies=True)
    assert torch.equal(whole, parts)
