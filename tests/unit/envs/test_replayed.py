"""An environment that cannot copy its state is continued by its actions."""

from typing import Any

import pytest

from megatron_trace.config import EnvironmentConfig
from megatron_trace.envs import Reply, ToolCall, make_environments
from megatron_trace.envs.contract import check_contract
from megatron_trace.envs.replayed import Replayed

GAME = """
from megatron_trace.envs import Environment, StepResult

class Game(Environment):
    stop = ("</go>",)
    replays = True

    def reset(self, task):
        self.stream = iter(range(task["first"], 100))
        return [{"role": "user", "content": "go"}]

    def step(self, action):
        seen = next(self.stream)
        if action == "end":
            return StepResult("", done=True, reward=1.0, malformed=False)
        return StepResult(f"{action} {seen}", done=False, reward=0.0, malformed=False)
"""


class Talk:
    """Notes the replies that it is given."""

    options, max_turns, shared, tools, stop, chat, retryable = None, 9, None, (), (), True, ()

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def reset(self, task: Any) -> Any:
        return [{"role": "user", "content": "go"}]

    def step(self, action: Any) -> Any:
        self.heard.append(action)


@pytest.fixture
def game(tmp_path: Any) -> Any:
    file = tmp_path / "game.py"
    file.write_text(GAME)
    return make_environments(EnvironmentConfig(str(file)))


def test_it_keeps_the_contract(game: Any) -> None:
    check_contract(game, {"id": "0", "first": 3}, ["a", "b", "end"])


def test_what_surrounds_it_sees_the_environment(game: Any) -> None:
    assert game().stop == ("</go>",) and game().chat is False


def test_replies_survive_the_way_through_json() -> None:
    reply = Reply("x", "thought", (ToolCall("add", {"a": 1}, "call_0"),))
    first, second = Replayed(Talk()), Replayed(Talk())  # type: ignore[arg-type]
    first.reset({"id": "0"})
    first.step(reply)
    second.restore(first.snapshot())
    assert second.episode.heard == [reply]  # type: ignore[attr-defined]
