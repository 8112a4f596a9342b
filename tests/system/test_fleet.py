"""The fleet against transformers: the same weights give the same numbers, whatever happens to the
workers.
"""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
import torch
from transformers import Qwen3ForCausalLM

from megatron_trace.config import Config, WeightBackend
from megatron_trace.models.predictor import shapes
from megatron_trace.rollout.fleet import Fleet
from megatron_trace.rollout.types import RolloutRequest
from megatron_trace.tree import ROOT, RolloutTree
from tests.system.conftest import letter_environments, make_policy

LAST_TOKENS = (258, 259)
"""The tags that end a turn: the model has a row for every token of its tokenizer, and no more."""
ENGINE_NAME = "VLLM::EngineCor"
"""Linux keeps 15 characters of a name."""
TASKS = [{"letter": letter} for letter in "abcdef"]
Weights = dict[str, torch.Tensor]


@dataclass
class FixedWeights:
    """Weights that nobody trains."""

    tensors: Weights

    def weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        return iter(self.tensors.items())

    def weight_metadata(self) -> list[tuple[str, torch.dtype, tuple[int, ...]]]:
        return [(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in self.weights()]


class Setup:
    """A fleet and the weights it should hold."""

    def __init__(self, folder: Path, *, tied: bool, workers: int, temperature: float) -> None:
        self.folder = make_policy(folder, tied=tied, vocabulary=LAST_TOKENS[-1] + 1)
        self.config = Config()
        self.config.precision.rollout = "float32"
        rollout = self.config.rollout
        rollout.workers, rollout.temperature, rollout.concurrency = workers, temperature, 16
        rollout.max_turn_tokens, rollout.max_history_tokens, rollout.block_size = 64, 512, 32
        rollout.cpu_cache_gib, rollout.weight_backend, rollout.max_restarts = (
            1,
            WeightBackend.ray,
            2,
        )
        self.model = Qwen3ForCausalLM.from_pretrained(self.folder, dtype=torch.float32)
        self.predictor: Weights = {}
        self.version = 0
        self.fleet = Fleet(self.config, str(self.folder), letter_environments)

    def update(self) -> None:
        """Perturb every weight and send it."""
        self.version += 1
        noise = torch.Generator().manual_seed(self.version)
        with torch.no_grad():
            for parameter in self.model.parameters():
                scale = 0.2 * parameter.std().clamp(min=0.1)
                parameter.add_(scale * torch.randn(parameter.shape, generator=noise))
        self.predictor = {
            name: torch.randn(shape, generator=noise) / 8 for name, shape in shapes(64).items()
        }
        weights = FixedWeights(self.model.state_dict() | self.predictor)
        self.fleet.update_weights(weights, self.version)

    @torch.no_grad()
    def reference(self, ids: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probability of each next token, and prediction after each token, by transformers and
        torch.
        """
        output = self.model(torch.tensor([ids]), output_hidden_states=True)
        logits = output.logits[0, :-1] / self.config.rollout.temperature
        logprobs = logits.log_softmax(-1)[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]
        weight, bias = self.predictor["predictor.weight"], self.predictor["predictor.bias"]
        return logprobs, (output.hidden_states[-1][0] @ weight[0] + bias).sigmoid()

    def bare(self, trees: list[RolloutTree], count: int) -> list[RolloutRequest]:
        names = [
            (number, f"v{self.version}/{number}/{i}")
            for number in range(len(trees))
            for i in range(count)
        ]
        return [request(trees[number], ROOT, name, number) for number, name in names]

    def grow(
        self,
        trees: list[RolloutTree],
        requests: list[RolloutRequest],
        anchors: list[int],
        stage: Any,
    ) -> None:
        for wanted, anchor, rollout in zip(
            requests, anchors, self.fleet.sample(requests), strict=True
        ):
            tree = trees[int(wanted.tree)]
            assert tree.turns[anchor].prediction in (
                None,
                pytest.approx(rollout.anchor_prediction, abs=1e-4),
            )
            tree.turns[anchor].prediction = rollout.anchor_prediction
            tree.graft(anchor, rollout.turns)


def request(tree: RolloutTree, anchor: int, name: str, number: int) -> RolloutRequest:
    state = tree.turns[anchor].state
    assert state is not None
    return RolloutRequest(name, tree.history_ids(anchor), state, str(number))


def check_parity(setup: Setup, trees: list[RolloutTree]) -> None:
    """Every log-probability and prediction in `trees` is transformers' own, also of the last rows of
    the vocabulary.
    """
    gaps, errors, moved, sampled_ids = [], [], [], set()
    for tree in trees:
        for leaf in tree.leaves():
            ids = tree.history_ids(leaf)
            logprobs, predictions = setup.reference(ids)
            end = 0
            for index in tree.path(leaf):
                turn = tree.turns[index]
                assert set(turn.versions) <= {setup.version}
                if turn.action_ids:
                    sampled = logprobs[end - 1 : end - 1 + len(turn.action_ids)]
                    sampled_ids |= set(turn.action_ids)
                    gaps += (sampled - torch.tensor(turn.logprobs)).abs().tolist()
                end += len(turn.action_ids) + len(turn.observation_ids)
                if turn.prediction is not None:
                    errors.append(abs(float(predictions[end - 1]) - turn.prediction))
                    moved.append(abs(turn.prediction - 0.5))
    assert len(gaps) > 500
    assert sampled_ids >= set(LAST_TOKENS) and max(sampled_ids) == LAST_TOKENS[-1]
    assert sum(gaps) / len(gaps) < 1e-4 and max(gaps) < 1e-2
    assert max(errors) < 1e-4 and max(moved) > 0.05


def grown_trees(setup: Setup) -> list[RolloutTree]:
    """Trees with bare rollouts and one continuation of every prefix."""
    trees = setup.fleet.open_trees(TASKS)
    bare = setup.bare(trees, 6)
    setup.grow(trees, bare, [ROOT] * len(bare), "bare")
    branches = [
        (request(tree, anchor, f"v{setup.version}/{number}/branch{anchor}", number), anchor)
        for number, tree in enumerate(trees)
        for anchor in tree.prefixes()
    ]
    assert len(branches) >= len(trees)
    setup.grow(
        trees,
        [branch for branch, _ in branches],
        [anchor for _, anchor in branches],
        "continuation",
    )
    return trees


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    with pytest.MonkeyPatch.context() as patch:  # Ray starts below torchrun's rank 0
        for name, value in {
            "RANK": "0",
            "WORLD_SIZE": "2",
            "MASTER_ADDR": "localhost",
            "MASTER_PORT": "1",
        }.items():
            patch.setenv(name, value)
        patch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
        setup = Setup(tmp_path_factory.mktemp("tied"), tied=True, workers=2, temperature=1.0)
        setup.fleet.wait()
    yield setup
    setup.fleet.close()


@pytest.fixture
def untied(tmp_path: Path) -> Iterator[Setup]:
    setup = Setup(tmp_path, tied=False, workers=1, temperature=0.7)
    yield setup
    setup.fleet.close()


def last_turn(setup: Setup, name: str) -> RolloutRequest:
    """A request of exactly one turn and a long history."""
    state = {"letter": "a", "turns": 2, "seen": ""}
    return RolloutRequest(name, list(range(40, 40 + 200)), state, "last")


def processes() -> list[dict[str, int]]:
    """Process ids of every worker's actor and of its engine, which is the actor's child.

    An actor without an engine is one that is ending, or that has only begun.
    """
    found = []
    for process in psutil.Process().children(recursive=True):
        if name(process).startswith("ray::Worker"):
            children = process.children()
            engines = [child.pid for child in children if name(child).startswith(ENGINE_NAME)]
            found += [{"actor": process.pid, "engine": engine} for engine in engines]
    return found


def name(process: psutil.Process) -> str:
    """Its name; nothing for a process that has ended meanwhile.

    Not its command line: Linux may say for a while that this is empty when a process has changed
    its title.
    """
    try:
        return process.name()
    except psutil.Error:
        return ""


def test_nothing_of_the_fleet_can_be_reached_from_the_network(tied: Setup) -> None:
    this = psutil.Process()
    listening = [
        (process.name(), connection.laddr.ip)
        for process in (this, *this.children(recursive=True))
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    names = {name for name, _ in listening}
    assert {"gcs_server", "raylet"} <= names
    assert [one for one in listening if not one[1].endswith("127.0.0.1")] == []


def test_a_policy_without_a_predictor_predicts_one_half(tied: Setup) -> None:
    assert [tree.turns[ROOT].prediction for tree in tied.fleet.open_trees(TASKS)] == [0.5] * len(
        TASKS
    )


def test_trees_have_the_numbers_of_transformers_after_several_updates(tied: Setup) -> None:
    for _ in range(3):
        tied.update()
    check_parity(tied, grown_trees(tied))


def test_the_cache_serves_one_version_only(tied: Setup) -> None:
    cached = []
    for _ in range(2):
        tied.update()
        cached += [
            tied.fleet.sample([last_turn(tied, name)])[0].cached_tokens for name in ("one", "two")
        ]
    assert cached[0] == cached[2] == 0
    assert cached[1] == cached[3] == 192


def test_the_same_names_give_the_same_rollouts(tied: Setup) -> None:
    trees = tied.fleet.open_trees(TASKS)
    requests = tied.bare(trees, 2)
    first, again = (
        [[turn.action_ids for turn in r.turns] for r in tied.fleet.sample(requests)]
        for _ in range(2)
    )
    assert first == again
    assert len({str(rollout) for rollout in first}) == len(first)


def test_an_error_in_a_job_is_raised_and_leaves_the_fleet_usable(tied: Setup) -> None:
    trees = tied.fleet.open_trees(TASKS[:1])
    too_long = RolloutRequest("long", [5] * 512, {}, "")
    with pytest.raises(ValueError, match="no room"):
        tied.fleet.sample([*tied.bare(trees, 4), too_long])
    assert len(tied.fleet.sample(tied.bare(trees, 4))) == 4


def test_more_prompt_tokens_than_a_step_takes_are_sampled(tied: Setup) -> None:
    tied.update()
    state = {"letter": "a", "turns": 2, "seen": ""}
    requests = [RolloutRequest(f"r{i}", [i + 5] * 490, state) for i in range(32)]
    assert len(tied.fleet.sample(requests)) == 32


def test_sampling_survives_the_death_of_an_engine_and_of_an_actor(tied: Setup) -> None:
    trees = tied.fleet.open_trees(TASKS)
    requests = tied.bare(trees, 8)
    workers = processes()
    assert len(workers) == 2
    first, second = workers
    killed = {3: first["engine"], 8: second["actor"]}
    done: list[int] = []

    def on_done(index: int, _: Any) -> None:
        done.append(index)
        if len(done) in killed:
            os.kill(killed[len(done)], signal.SIGKILL)

    rollouts = tied.fleet.sample(requests, on_done)
    assert sorted(done) == list(range(len(requests)))
    deaths = [event for event in tied.fleet.events if "died" in event]
    assert len(deaths) == 2
    for wanted, rollout in zip(requests, rollouts, strict=True):
        trees[int(wanted.tree)].graft(ROOT, rollout.turns)
    check_parity(tied, trees)


@pytest.mark.slow
def test_an_untied_model_at_another_temperature_has_the_same_parity(untied: Setup) -> None:
    for _ in range(2):
        untied.update()
    check_parity(untied, grown_trees(untied))


def test_a_closed_fleet_leaves_no_process_and_no_file(tied: Setup) -> None:
    """The last test of this file: the fleet that started Ray is closed."""
    temp = tied.fleet._cluster.temp
    assert temp is not None
    # The test before this one killed two workers, which may still be starting.
    tied.fleet.wait()
    # The actors say themselves where they are: a name can be missed while a process changes it.
    slots = tied.fleet._pool.slots
    actors = ray.get([slot.actor.__ray_call__.remote(lambda _: os.getpid()) for slot in slots])
    engines = [child.pid for actor in actors for child in psutil.Process(actor).children()]
    pids = [*actors, *engines, *tied.fleet.vital_processes().values()]
    assert len(actors) == 2 and len(engines) >= 2
    tied.fleet.close()
    assert not [
        pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"
    ]
    assert not [path for path in temp.rglob("*") if path.is_socket()]
    assert not ray.is_initialized()
