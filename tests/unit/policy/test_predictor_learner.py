"""How a rank teaches the predictor: who learns, what the head gets, what a checkpoint keeps."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, distributed

from megatron_trace.config import PredictorConfig
from megatron_trace.learning.read_out import ReadOut, balanced, learned, unknown
from megatron_trace.models.predictor import PredictorHead
from megatron_trace.policy import predictor_learner
from megatron_trace.policy.predictor_learner import PredictorLearner

HIDDEN, ANCHORS, ROLLOUTS = 6, 30, 12
SETTINGS = PredictorConfig(forgetting=0.2, prior_std=5.0)


@pytest.fixture(autouse=True, scope="module")
def alone() -> Iterator[None]:
    """A process group of this process."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def make_head() -> PredictorHead:
    torch.manual_seed(4)
    head = PredictorHead(HIDDEN).requires_grad_(False)
    for parameter in head.parameters():
        parameter += 0.3 * torch.randn_like(parameter)
    return head


def make() -> tuple[PredictorHead, PredictorLearner]:
    head = make_head()
    return head, PredictorLearner(head, SETTINGS, distributed.group.WORLD)


def anchors(seed: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(seed)
    return torch.randn(ANCHORS, HIDDEN), torch.rand(ANCHORS), torch.arange(ANCHORS) % 5 == 0


def test_the_head_gets_the_mean_of_what_is_learned_step_by_step() -> None:
    head, learner = make()
    known = unknown(head.weight, head.bias)
    for seed in range(3):
        hidden, target, root = anchors(seed)
        learner.learn(hidden.clone(), target, root, ROLLOUTS)
        known = learned(known, hidden, target, balanced(root, ROLLOUTS), SETTINGS)
        assert torch.equal(head.weight, known.mean[None, :-1].float())
        assert torch.equal(head.bias, known.mean[-1:].float())
        for found, right in zip(learner._known, known, strict=True):
            assert torch.equal(found, right)


def test_the_head_comes_closer_to_the_outcomes() -> None:
    head, learner = make()
    hidden, _, root = anchors()
    target = (hidden[:, 0] > 0).float()
    errors = []
    for _ in range(4):
        errors.append((torch.sigmoid(head(hidden)) - target).square().mean().item())
        learner.learn(hidden.clone(), target, root, ROLLOUTS)
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.7 * errors[0]


def test_rounding_of_the_head_to_float32_is_not_learned_from() -> None:
    """What is known has more digits than the head, and it continues from those."""
    head, learner = make()
    learner.learn(*anchors(), ROLLOUTS)
    assert not torch.equal(learner._known.mean, learner._known.mean.float().double())
    before = learner._known.mean
    head.weight.zero_()
    assert learner._known.mean is before and before.any()


@pytest.mark.parametrize("learned_before", [False, True])
def test_without_anchors_nothing_changes(learned_before: bool) -> None:
    head, learner = make()
    if learned_before:
        learner.learn(*anchors(), ROLLOUTS)
    before = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    known = learner._known
    learner.learn(torch.zeros(0, HIDDEN), torch.zeros(0), torch.zeros(0, dtype=torch.bool), 0)
    assert learner._known is known
    for name, tensor in head.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_what_is_restored_goes_on_bit_for_bit() -> None:
    head, learner = make()
    learner.learn(*anchors(), ROLLOUTS)
    entries = learner.sharded_state()
    assert {name: entry.key for name, entry in entries.items()} == {
        name: f"optimizer.predictor.{name}" for name in ReadOut._fields
    }
    for entry in entries.values():
        assert entry.global_shape == entry.local_shape == tuple(entry.data.shape)
    stored = {name: entry.data.clone() for name, entry in entries.items()}
    weights = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    other, restored = make()
    other.load_state_dict(weights)
    restored.load(stored)
    assert isinstance(restored._known, ReadOut)
    for each in (learner, restored):
        each.learn(*anchors(seed=6), ROLLOUTS)
    for name, tensor in head.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])
        assert not torch.equal(tensor, weights[name])
    for found, right in zip(restored._known, learner._known, strict=True):
        assert torch.equal(found, right)


def test_a_new_rank_asks_a_checkpoint_for_tensors_of_the_same_shapes() -> None:
    (_, taught), (_, new) = make(), make()
    taught.learn(*anchors(), ROLLOUTS)
    shapes = [
        {name: entry.global_shape for name, entry in learner.sharded_state().items()}
        for learner in (taught, new)
    ]
    assert shapes[0] == shapes[1]


def test_the_first_rank_keeps_8_bytes_for_each_number() -> None:
    _, learner = make()
    n = HIDDEN + 1
    assert learner.nbytes == 8 * n * (n + 2)
    learner.learn(*anchors(), ROLLOUTS)
    assert learner.nbytes == 8 * n * (n + 2)


def test_states_that_are_not_finite_are_an_error_on_every_rank(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    head, learner = make()
    hidden, target, root = anchors()
    hidden[3, 2] = torch.inf
    with pytest.raises(FloatingPointError, match="final hidden states"):
        learner.learn(hidden, target, root, ROLLOUTS)
    # What the other ranks are sent then.
    assert head.weight.isnan().all() and head.bias.isnan().all()
    monkeypatch.setattr(predictor_learner.distributed, "reduce", lambda *_, **__: None)
    monkeypatch.setattr(
        predictor_learner.distributed, "broadcast", lambda tensor, **_: tensor.fill_(torch.nan)
    )
    other = PredictorLearner(make_head(), SETTINGS, Second())
    with pytest.raises(FloatingPointError, match="final hidden states"):
        other.learn(*anchors(), ROLLOUTS)


class Second:
    """A group in which this process is not the first."""

    def rank(self) -> int:
        return 1


def test_a_rank_that_is_not_the_first_holds_nothing_and_takes_what_it_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    head, group, given = make_head(), Second(), []

    def reduce(tensor: Tensor, group: Second, group_dst: int) -> None:
        given.append((tensor.clone(), group, group_dst))

    def broadcast(tensor: Tensor, group: Second, group_src: int) -> None:
        assert group_src == 0
        tensor.fill_(7.0)

    monkeypatch.setattr(predictor_learner.distributed, "reduce", reduce)
    monkeypatch.setattr(predictor_learner.distributed, "broadcast", broadcast)
    learner = PredictorLearner(head, SETTINGS, group)
    hidden, target, root = anchors()
    learner.learn(hidden, target, root, ROLLOUTS)
    ((sent, where, to),) = given
    assert torch.equal(sent, hidden) and where is group and to == 0
    assert head.weight.tolist() == [[7.0] * HIDDEN] and head.bias.tolist() == [7.0]
    assert learner.nbytes == 0 and learner.sharded_state() == {}
    learner.load({})
    assert learner._known is None


def test_of_several_ranks_the_first_learns_from_the_states_of_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hidden, target, root = anchors()
    alone, learner = make()
    learner.learn(hidden.clone(), target, root, ROLLOUTS)
    own = (torch.arange(ANCHORS) % 2 == 0)[:, None]

    def reduce(tensor: Tensor, group: object, group_dst: int) -> None:
        tensor += torch.where(own, 0.0, hidden)

    monkeypatch.setattr(predictor_learner.distributed, "reduce", reduce)
    head, first = make()
    first.learn(torch.where(own, hidden, 0.0), target, root, ROLLOUTS)
    assert torch.equal(head.weight, alone.weight) and torch.equal(head.bias, alone.bias)
