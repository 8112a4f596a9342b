"""What the two reserved tokens carry comes back, whatever the temperature, and the others do not
notice.
"""

import pytest
import torch

from megatron_trace.models import reserved
from megatron_trace.models.reserved import read_entropies, read_prediction, write_reserved

PREDICTED = torch.tensor([-3.0, 0.0, 1.7, 30.0])
TEMPERATURES = [0.0, 0.2, 0.7, 1.0, 1.5]


def made_logits(vocabulary: int = 1000) -> torch.Tensor:
    """Rows from nearly uniform to nearly certain."""
    noise = torch.randn(4, vocabulary, generator=torch.Generator().manual_seed(0))
    return noise * torch.tensor([[0.1], [2.0], [6.0], [25.0]]) + 8.0


def logprobs(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """As the sampler has them: float32, scaled by the temperature, greedily not at all."""
    return (logits / (temperature or 1.0)).log_softmax(-1)


def reference(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """Entropies in float64, without the reserved tokens."""
    exact = logprobs(logits[:, :-2].double(), temperature)
    return -(exact.exp() * exact).sum(-1)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_entropies_are_those_of_the_distribution_that_is_sampled_from(temperature: float) -> None:
    logits = made_logits()
    write_reserved(logits, PREDICTED, temperature)
    entropies = read_entropies(logprobs(logits, temperature)[:, -2].tolist(), temperature)
    # The same float32 carries 60 / temperature beside the entropy.
    resolution = 2e-5 / min(temperature or 1.0, 1.0)
    assert torch.tensor(entropies).sub(reference(logits, temperature)).abs().max() < resolution
    assert min(entropies) >= 0.0


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("with_entropies", [False, True])
def test_predictions_are_the_same_with_and_without_entropies(
    temperature: float, with_entropies: bool
) -> None:
    logits = made_logits()
    write_reserved(logits, PREDICTED, temperature if with_entropies else None)
    rows = logprobs(logits, temperature)
    found = [read_prediction(float(row[-2]), float(row[-1]), temperature) for row in rows]
    assert found == pytest.approx(PREDICTED.clamp(-20, 20).sigmoid().tolist(), abs=3e-6)


@pytest.mark.parametrize("temperature", [None, *TEMPERATURES])
def test_the_reserved_tokens_have_no_mass(temperature: float | None) -> None:
    logits = made_logits()
    before = logprobs(logits[:, :-2], temperature or 1.0)
    write_reserved(logits, PREDICTED, temperature)
    assert torch.equal(logprobs(logits, temperature or 1.0)[:, :-2], before)


def test_without_entropies_the_rows_hang_below_the_maximum() -> None:
    logits = made_logits()
    write_reserved(logits, PREDICTED)
    base = logits[:, :-2].amax(-1) - 60.0
    assert torch.equal(logits[:, -2], base)
    assert torch.equal(logits[:, -1], base + PREDICTED.clamp(-20, 20))


def test_a_large_batch_is_done_some_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = made_logits(), made_logits()
    write_reserved(whole, PREDICTED, 0.7)
    monkeypatch.setattr(reserved, "CHUNK_ELEMENTS", 3000)
    write_reserved(parts, PREDICTED, 0.7)
    assert torch.equal(whole, parts)
