"""What the predictor learns from a step's anchors, against AdamW written out in float64."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, distributed

from megatron_trace.config import PredictorConfig
from megatron_trace.models.predictor import PredictorHead
from megatron_trace.policy.predictor_optimizer import PredictorOptimizer

HIDDEN, WIDTH, ANCHORS = 6, 5, 9


@pytest.fixture(autouse=True, scope="module")
def alone() -> Iterator[None]:
    """A process group of this process."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def make(**settings: float) -> tuple[PredictorHead, PredictorOptimizer]:
    head = PredictorHead(HIDDEN, WIDTH, seed=3)
    torch.manual_seed(4)
    for parameter in head.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    learning = PredictorConfig(**{"learning_rate": 0.01, "average": 0.0} | settings)
    return head, PredictorOptimizer(head, learning, distributed.group.WORLD)


def anchors() -> tuple[Tensor, Tensor]:
    torch.manual_seed(5)
    return torch.randn(ANCHORS, HIDDEN), torch.rand(ANCHORS)


def learn(optimizer: PredictorOptimizer, seed: int = 0, factor: float = 1.0) -> None:
    hidden, target = anchors()
    optimizer.learn(hidden, target, np.random.default_rng(seed), factor)


def exact(head: PredictorHead, batches: list[list[int]], rate: float) -> list[Tensor]:
    """The head after AdamW (arXiv 1711.05101, algorithm 2, no decay) on these mini-batches, in
    float64.
    """
    hidden, target = (tensor.double() for tensor in anchors())
    w1, b1, w2, b2 = (parameter.detach().double() for parameter in head.parameters())
    values = [w1, b1, w2, b2]
    first, second = ([torch.zeros_like(value) for value in values] for _ in range(2))
    for step, batch in enumerate(batches, start=1):
        leaves = [value.clone().requires_grad_() for value in values]
        inner = hidden[batch] @ leaves[0].T + leaves[1]
        inner = (
            0.5 * inner * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (inner + 0.044715 * inner**3)))
        )
        chance = 1 / (1 + torch.exp(-(inner @ leaves[2].T + leaves[3])[:, 0]))
        gradients = torch.autograd.grad(((chance - target[batch]) ** 2).mean(), leaves)
        for value, m, v, gradient in zip(values, first, second, gradients, strict=True):
            m += 0.1 * (gradient - m)
            v += 0.001 * (gradient**2 - v)
            value -= rate * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)) ** 0.5 + 1e-8)
    return values


@pytest.mark.parametrize("batch", [64, 4])
def test_it_learns_by_adam_from_every_anchor_once_a_pass(batch: int) -> None:
    head, optimizer = make(epochs=3, batch=batch)
    generator, sizes = np.random.default_rng(7), [9] if batch == 64 else [3, 3, 3]
    batches = [
        part.tolist()
        for _ in range(3)
        for part in np.split(generator.permutation(ANCHORS), np.cumsum(sizes)[:-1])
    ]
    right = exact(head, batches, rate=0.0025)
    learn(optimizer, seed=7, factor=0.25)
    for parameter, value in zip(head.parameters(), right, strict=True):
        torch.testing.assert_close(parameter.detach().double(), value, rtol=0, atol=2e-6)


def test_more_passes_come_closer_to_the_targets() -> None:
    errors = []
    for epochs in (1, 8, 64):
        head, optimizer = make(epochs=epochs)
        learn(optimizer)
        hidden, target = anchors()
        errors.append((torch.sigmoid(head(hidden)) - target).square().mean().item())
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.5 * errors[0]


def test_the_order_of_the_anchors_is_the_generators() -> None:
    heads = []
    for seed in (0, 0, 1):
        head, optimizer = make(batch=2)
        learn(optimizer, seed)
        heads.append(head.fc1.weight.detach())
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_the_head_is_the_moving_average_of_what_is_learned_without_it() -> None:
    averaged, optimizer = make(average=0.6)
    plain, alone = make()
    right = [parameter.detach().double() for parameter in plain.parameters()]
    for seed in range(3):
        learn(optimizer, seed)
        learn(alone, seed)
        right = [
            0.6 * value + 0.4 * parameter.detach().double()
            for value, parameter in zip(right, plain.parameters(), strict=True)
        ]
    for parameter, value in zip(averaged.parameters(), right, strict=True):
        torch.testing.assert_close(parameter.detach().double(), value, rtol=0, atol=1e-6)


def test_without_anchors_nothing_changes() -> None:
    head, optimizer = make()
    before = head.fc1.weight.detach().clone()
    optimizer.learn(torch.zeros(0, HIDDEN), torch.zeros(0), np.random.default_rng(0), 1.0)
    assert torch.equal(head.fc1.weight, before)


def test_what_is_restored_goes_on_bit_for_bit() -> None:
    head, optimizer = make(average=0.6)
    learn(optimizer)
    stored = {name: entry.data.clone() for name, entry in optimizer.sharded_state().items()}
    weights = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    other, restored = make(average=0.6)
    other.load_state_dict(weights)
    restored.load(stored)
    for each in (optimizer, restored):
        learn(each, seed=1)
    for name, tensor in head.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])
    assert optimizer.sharded_state()["step"].data == restored.sharded_state()["step"].data
