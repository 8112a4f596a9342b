"""A Gymnasium environment as a chat, continued by its actions."""

from typing import Any

import gymnasium
import numpy as np
import pytest

from megatron_trace.config import EnvironmentConfig
from megatron_trace.envs import Reply, make_environments
from megatron_trace.envs.check import check_environment
from megatron_trace.envs.contract import check_contract


class Hidden(gymnasium.Env):
    """Find a number from 0 to 7; a right guess is worth what `prize` says."""

    def __init__(self, prize: float = 1.0, texts: bool = False) -> None:
        self.prize, self.texts = prize, texts
        self.action_space: Any = gymnasium.spaces.Discrete(8)
        if texts:
            self.action_space = gymnasium.spaces.Text(1, charset="01234567")
        self.observation_space = gymnasium.spaces.Text(20)

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[str, dict]:
        super().reset(seed=seed)
        self.number = int(self.np_random.integers(8))
        return "Guess.", {}

    def step(self, action: Any) -> tuple[str, float, bool, bool, dict]:
        right = int(action) == self.number
        return (
            ("higher" if int(action) < self.number else "lower"),
            self.prize * right,
            right,
            False,
            {},
        )


class Shapes(Hidden):
    """Its actions are no texts."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = gymnasium.spaces.Box(0, 1, (2,), np.float32)


for entry in (Hidden, Shapes):
    gymnasium.register(f"{entry.__name__}-v0", entry, order_enforce=False, disable_env_checker=True)
TASK = {"id": "0", "seed": 3}


def maker(max_turns: int = 9, **options: Any) -> Any:
    given = {"id": "Hidden-v0", **options}
    return make_environments(
        EnvironmentConfig("gymnasium_text", max_turns, {"gymnasium_text": given})
    )


def number() -> int:
    return int(np.random.default_rng(3).integers(8))


def say(text: str) -> Reply:
    return Reply(text)


def test_it_keeps_the_contract() -> None:
    wrong, right = say(str((number() + 1) % 8)), say(f"I say {number()}.")
    check_contract(maker(), TASK, [wrong, wrong, right])
    found = check_environment(maker(), [{"id": str(n), "seed": n} for n in range(4)], 2)
    assert found.episodes == 8


def test_the_reward_is_the_sum() -> None:
    episode = maker()()
    assert episode.reset(TASK) == [{"role": "user", "content": "Guess."}]
    assert episode.step(say(str(number()))).reward == 1.0


def test_a_text_space_takes_the_text_as_it_is() -> None:
    episode = maker(arguments={"texts": True}, instruction="Find it.")()
    assert [message["role"] for message in episode.reset(TASK)] == ["system", "user"]
    assert episode.step(say(f"I say {number()}")).malformed
    assert episode.step(say(str(number()))).done


@pytest.mark.parametrize("text", ["none", "9", "-1", ""])
def test_what_is_no_action_is_told(text: str) -> None:
    episode = maker()()
    episode.reset(TASK)
    result = episode.step(say(text))
    assert result.malformed and not result.done and "no such action" in str(result.observation)


def test_the_last_turn_ends_the_episode() -> None:
    episode = maker(max_turns=1)()
    episode.reset(TASK)
    assert episode.step(say("none")).done


@pytest.mark.parametrize(
    ("id", "message"),
    [("Nothing-v0", "gymnasium.make"), ("Shapes-v0", "neither texts nor discrete")],
)
def test_an_environment_that_cannot_be_used_is_refused(id: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        maker(id=id)


@pytest.mark.parametrize("seed", [None, -1, 1.5, True])
def test_a_task_needs_a_seed(seed: Any) -> None:
    with pytest.raises(ValueError, match="seed must be a whole number"):
        maker()().check_task({"id": "0", "seed": seed})
