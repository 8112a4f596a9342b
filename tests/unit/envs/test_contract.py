"""The contract test notices what an environment may not do."""

import asyncio
from typing import Any

import pytest

from megatron_trace.envs import Environment, StepResult
from megatron_trace.envs.contract import check_contract


class Counting(Environment):
    """Ends with the action "end"; says how many turns there were."""

    stop = ("</go>",)

    def reset(self, task: Any) -> list[dict[str, str]]:
        self.state: dict[str, Any] = {"seen": []}
        return [{"role": "user", "content": "go"}]

    def step(self, action: str) -> StepResult:
        self.state = {"seen": [*self.state["seen"], action]}
        if action == "end":
            return StepResult("", done=True, reward=1.0, malformed=False)
        return StepResult(str(len(self.state["seen"])), done=False, reward=0.0, malformed=False)

    def snapshot(self) -> dict[str, Any]:
        return dict(self.state)

    def restore(self, snapshot: Any) -> None:
        self.state = dict(snapshot)


class Forgetful(Counting):
    """Restores nothing."""

    def restore(self, snapshot: Any) -> None:
        self.state = {"seen": []}


class Generous(Counting):
    """Pays too much."""

    def step(self, action: str) -> StepResult:
        result = super().step(action)
        return StepResult(result.observation, result.done, 2 * result.reward, malformed=False)


class Sharing(Counting):
    """Later steps change what was restored."""

    def step(self, action: str) -> StepResult:
        seen = self.state["seen"]
        result = super().step(action)
        seen.append(action)
        self.state = {"seen": seen}
        return result


def check(kind: type[Environment], *actions: str) -> None:
    check_contract(kind.maker(kind.Options(), 6), {"id": "0"}, actions)


def test_an_environment_that_keeps_it_passes() -> None:
    check(Counting, "a", "b", "end")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Forgetful, "snapshot after restore is another"),
        (Generous, r"the reward is 2, which is not in \[0, 1\]"),
        (Sharing, "later steps have changed a snapshot"),
    ],
)
def test_what_breaks_it_is_named(kind: type[Environment], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check(kind, "a", "b", "end")


def test_the_actions_must_end_the_episode() -> None:
    with pytest.raises(AssertionError, match="the last action, and only that one"):
        check(Counting, "a", "b")


class Waiting(Counting):
    """Its methods are coroutines."""

    async def reset(self, task: Any) -> Any:
        return super().reset(task)

    async def step(self, action: str) -> Any:
        await asyncio.sleep(0)
        return super().step(action)


def test_coroutines_are_awaited() -> None:
    check(Waiting, "a", "b", "end")
