"""What strategies need beyond log-probabilities, from a real engine, against transformers in
float64.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import Qwen3ForCausalLM

from megatron_trace.config import Config, WeightBackend
from megatron_trace.models.predictor import FILE, shapes
from megatron_trace.rollout.fleet import Fleet
from megatron_trace.rollout.types import RolloutRequest, SampledRollout
from megatron_trace.tree import ROOT, Requires, RolloutTree
from tests.system.conftest import letter_environments, make_policy

TASKS = [{"letter": letter} for letter in "abc"]


class Setup:
    """A fleet, and its policy in float64."""

    def __init__(self, folder: Path, temperature: float, requires: frozenset[Requires]) -> None:
        make_policy(folder, tied=True)
        noise = torch.Generator().manual_seed(1)
        predictor = {
            name: torch.randn(shape, generator=noise) / 8 for name, shape in shapes(64).items()
        }
        save_file(predictor, folder / FILE)
        config = Config()
        config.precision.rollout = "float32"
        rollout = config.rollout
        rollout.temperature, rollout.concurrency, rollout.block_size = temperature, 16, 32
        rollout.max_turn_tokens, rollout.max_history_tokens = 64, 512
        rollout.cpu_cache_gib, rollout.weight_backend = 1, WeightBackend.ray
        self.temperature = temperature
        self.model = Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float64)
        self.fleet = Fleet(config, str(folder), letter_environments, requires=requires)

    @torch.no_grad()
    def entropies(self, ids: list[int]) -> torch.Tensor:
        """Entropy of the distribution of each next token, [len(ids)]."""
        logits = self.model(torch.tensor([ids])).logits[0]
        logprobs = (logits / self.temperature).log_softmax(-1)
        return -(logprobs.exp() * logprobs).sum(-1)


@pytest.fixture(scope="module", params=[0.7, pytest.param(1.0, marks=pytest.mark.slow)])
def setup(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Setup]:
    """A fleet that provides everything, at a temperature."""
    setup = Setup(tmp_path_factory.mktemp("needs"), request.param, frozenset(Requires))
    yield setup
    setup.fleet.close()


def bare(trees: list[RolloutTree], first: int, count: int) -> list[RolloutRequest]:
    requests = []
    for number, tree in enumerate(trees):
        state = tree.turns[ROOT].state
        assert state is not None
        names = [f"{number}/{i}" for i in range(first, first + count)]
        requests += [
            RolloutRequest(name, tree.history_ids(ROOT), state, str(number)) for name in names
        ]
    return requests


def test_entropies_and_embeddings_are_those_of_transformers(setup: Setup) -> None:
    trees = setup.fleet.open_trees(TASKS)
    matrix = setup.model.get_input_embeddings().weight
    for tree in trees:
        expected = matrix[torch.tensor(tree.history_ids(ROOT))].mean(0)
        assert tree.embedding is not None
        assert torch.tensor(tree.embedding).sub(expected).abs().max() < 1e-6
    requests = bare(trees, 0, 4)
    for request, rollout in zip(requests, setup.fleet.sample(requests), strict=True):
        trees[int(request.tree)].graft(ROOT, rollout.turns)
    gaps, seen = [], []
    for tree in trees:
        for leaf in tree.leaves():
            expected, end = setup.entropies(tree.history_ids(leaf)), 0
            for turn in (tree.turns[index] for index in tree.path(leaf)):
                assert len(turn.entropies) == len(turn.action_ids)
                gaps += [
                    abs(entropy - float(expected[end - 1 + offset]))
                    for offset, entropy in enumerate(turn.entropies)
                ]
                seen += turn.entropies
                end += len(turn.action_ids) + len(turn.observation_ids)
    assert len(gaps) > 500 and max(gaps) < 1e-3 and sum(gaps) / len(gaps) < 2e-5
    assert min(seen) >= 0.0 and max(seen) > 1.0


def test_rollouts_that_others_ask_for_are_sampled_in_the_same_call(setup: Setup) -> None:
    trees, heard = setup.fleet.open_trees(TASKS), []

    def on_done(index: int, rollout: SampledRollout) -> list[RolloutRequest] | None:
        heard.append(index)
        return bare(trees[:1], 100 + index, 1) if index < 6 else None

    begun = bare(trees, 0, 2)
    rollouts = setup.fleet.sample(begun, on_done)
    assert sorted(heard) == list(range(12)) and len(rollouts) == 12
    again = setup.fleet.sample([*begun, *bare(trees[:1], 100, 6)])
    said = [[turn.action_ids for turn in rollout.turns] for rollout in (*rollouts, *again)]
    assert said[:6] == said[12:18]
    assert sorted(said[6:12]) == sorted(said[18:])


@pytest.mark.slow
@pytest.mark.parametrize("setup", [0.7], indirect=True)
def test_what_is_needed_changes_no_rollout(setup: Setup, tmp_path: Path) -> None:
    plain = Setup(tmp_path / "plain", 0.7, frozenset())
    both = [(one.fleet.open_trees(TASKS), one.fleet) for one in (setup, plain)]
    (asked, full), (trees, empty) = [(t, fleet.sample(bare(t, 0, 4))) for t, fleet in both]
    plain.fleet.close()
    assert all(tree.embedding is None for tree in trees) and all(tree.embedding for tree in asked)
    for one, other in zip(full, empty, strict=True):
        assert [turn.action_ids for turn in one.turns] == [turn.action_ids for turn in other.turns]
        assert not any(turn.entropies for turn in other.turns)
        assert one.anchor_prediction == pytest.approx(other.anchor_prediction, abs=5e-6)
        assert abs(one.anchor_prediction - 0.5) > 0.01
