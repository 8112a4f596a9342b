"""Whatever an environment does, its episode ends in a checked result or in a failure."""

import asyncio
import contextlib
import json
import math
import threading
import time
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from megatron_trace.envs import Environment, StepResult
from megatron_trace.rollout import episode as episode_module
from megatron_trace.rollout.episode import CallRules, Episode, Step
from megatron_trace.rollout.failures import EpisodeFailed

TASK = {"id": "geo-7"}


class Odd(Environment):
    """Does what it is told, in its first step, or in the first `times` of them."""

    def __init__(self, does: Callable[[], Any], times: int = 1) -> None:
        self.does, self.left = does, [times]
        self.restored: list[dict[str, Any]] = []

    def __call__(self) -> "Odd":
        """Makes itself: what it remembers is that of all its episodes."""
        return self

    def reset(self, task: Any) -> Any:
        return self.does() or [{"role": "user", "content": "go"}]

    def step(self, action: str) -> Any:
        self.left[0] -= 1
        if self.left[0] >= 0:
            return self.does()
        return StepResult("seen", done=False, reward=0.0, malformed=False)

    def snapshot(self) -> dict[str, Any]:
        return {"left": self.left[0]}

    def restore(self, snapshot: Any) -> None:
        self.restored.append(dict(snapshot))
        snapshot.clear()


def encode(text: str) -> list[int]:
    return [ord(char) for char in text]


def step(environment: Odd, **rules: Any) -> Step:
    one = Episode(environment, CallRules("odd", **rules), "geo-7")
    return asyncio.run(one.step({"before": 1}, "act", encode))


def failure(environment: Odd, **rules: Any) -> str:
    with pytest.raises(EpisodeFailed) as caught:
        step(environment, **rules)
    return caught.value.failure.text


def raising(error: BaseException) -> Callable[[], Any]:
    def raise_it() -> None:
        raise error

    return raise_it


class Unprintable(Exception):
    """Cannot even be told."""

    def __str__(self) -> str:
        raise ValueError("no text")


ERRORS = [
    TimeoutError("the sandbox did not answer"),
    SystemExit(3),
    KeyboardInterrupt(),
    StopIteration(),
    asyncio.CancelledError(),
    GeneratorExit(),
    AssertionError(),
    Unprintable(),
    RuntimeError("two\nlines \ud835"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_of_any_kind_ends_the_episode_and_nothing_else(error: BaseException) -> None:
    text = failure(Odd(raising(error)))
    assert text.startswith("environment odd, task geo-7: step raised ")
    assert type(error).__name__ in text and "test_episode.py, line" in text
    assert "\n" not in text and text.encode()


def test_an_error_in_a_library_names_the_line_of_the_author_that_called_it() -> None:
    def reads() -> None:
        json.loads("{")

    line = reads.__code__.co_firstlineno + 1
    assert failure(Odd(reads)).endswith(f"(test_episode.py, line {line})")


def test_a_stack_goes_with_the_failure() -> None:
    with pytest.raises(EpisodeFailed) as caught:
        step(Odd(raising(ValueError("deep"))))
    assert "in raise_it" in caught.value.failure.trace


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (None, "step returned None"),
        (StepResult("", True, math.nan, False), "the reward is nan"),
        (StepResult("", True, 100, False), r"the reward is 100, which is not in [0, 1]"),
        (StepResult("", True, 0.0, False, tool_errors=-1), "tool_errors is -1 (int)"),
        (StepResult(None, False, 0.0, False), "the observation is None"),  # type: ignore[arg-type]
    ],
)
def test_a_bad_result_is_named_with_environment_and_task(result: Any, text: str) -> None:
    assert f"environment odd, task geo-7: {text}" in failure(Odd(lambda: result))


def test_a_step_that_hangs_fails_and_the_next_ones_do_not_wait_for_it() -> None:
    release = threading.Event()
    rules = CallRules("odd", limit_s=0.05, slots=asyncio.Semaphore(1))
    hanging = [Episode(Odd(release.wait), rules, "geo-7") for _ in range(3)]
    good = Episode(Odd(lambda: None, times=0), rules, "geo-8")

    async def all_steps() -> list[Any]:
        steps = [one.step({}, "act", encode) for one in [*hanging, good]]
        return await asyncio.gather(*steps, return_exceptions=True)

    begin = time.monotonic()
    *failed, taken = asyncio.run(all_steps())
    assert time.monotonic() - begin < 5
    assert all("environment.step_timeout_s = 0.05" in str(error) for error in failed)
    assert taken.following == encode("seen")
    release.set()


def test_all_calls_of_an_episode_have_a_limit_together() -> None:
    slow = Odd(lambda: time.sleep(0.15), times=9)
    one = Episode(slow, CallRules("odd", limit_s=5.0, all_s=0.4), "geo-7")

    async def steps() -> None:
        for _ in range(5):
            with contextlib.suppress(EpisodeFailed):
                await one.step({}, "act", encode)
        await one.step({}, "act", encode)

    with pytest.raises(EpisodeFailed, match=r"within environment\.task_timeout_s = 0\.4"):
        asyncio.run(steps())


def test_what_the_environment_calls_retryable_is_tried_again_from_the_same_state(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(episode_module, "RETRY_WAIT_S", 0.0)
    environment = Odd(raising(TimeoutError("busy")), times=2)
    taken = step(environment, retryable=(TimeoutError,), retries=2)
    assert taken.following == encode("seen") and taken.snapshot == {"left": -1}
    assert environment.restored == [{"before": 1}] * 3


def test_nothing_else_is_tried_again_and_tries_come_to_an_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(episode_module, "RETRY_WAIT_S", 0.0)
    environment = Odd(raising(ValueError("wrong")), times=9)
    failure(environment, retryable=(TimeoutError,), retries=2)
    assert len(environment.restored) == 1
    environment = Odd(raising(TimeoutError("busy")), times=9)
    failure(environment, retryable=(TimeoutError,), retries=2)
    assert len(environment.restored) == 3


def test_a_restored_object_is_used_until_a_step_fails() -> None:
    environment = Odd(lambda: None, times=0)

    async def steps() -> None:
        one = Episode(environment, CallRules(), "geo-7")
        for _ in range(3):
            await one.step({"before": 1}, "act", encode)

    asyncio.run(steps())
    assert len(environment.restored) == 1


def begin(environment: Odd, longest: int = 10, prompt: Any = None) -> list[int]:
    one = Episode(environment, CallRules("odd"), "geo-7")
    tokens = prompt or (lambda messages, tools: encode(messages[0]["content"]))
    return asyncio.run(one.begin(TASK, tokens, longest))[0]


def test_an_episode_begins_with_its_prompt() -> None:
    assert begin(Odd(lambda: None)) == encode("go")


@pytest.mark.parametrize(
    ("environment", "longest", "prompt", "text"),
    [
        (Odd(raising(KeyError("question"))), 10, None, "reset raised KeyError: 'question'"),
        (Odd(lambda: "a question"), 10, None, "reset returned 'a question'"),
        (Odd(lambda: None), 2, None, "a prompt of 2 tokens leaves no room"),
        (Odd(lambda: None), 9, lambda *_: 1 / 0, "the chat template raised ZeroDivisionError"),
    ],
)
def test_an_episode_that_cannot_begin_is_a_failure(
    environment: Odd, longest: int, prompt: Any, text: str
) -> None:
    with pytest.raises(EpisodeFailed, match=text):
        begin(environment, longest, prompt)


class Async(Environment):
    """Its methods are coroutines, and note the thread in which they run."""

    waits_s = 0.0
    threads: ClassVar[list[threading.Thread]] = []

    async def reset(self, task: Any) -> Any:
        self.threads.append(threading.current_thread())
        return [{"role": "user", "content": "go"}]

    async def step(self, action: str) -> Any:
        self.threads.append(threading.current_thread())
        await asyncio.sleep(self.waits_s)
        return StepResult("seen", done=False, reward=0.0, malformed=False)

    def snapshot(self) -> dict[str, Any]:
        return {}

    def restore(self, snapshot: Any) -> None:
        pass


def play(waits_s: float) -> Step:
    def make() -> Environment:
        made = Async(None, 9)
        made.waits_s = waits_s
        return made

    async def both() -> Step:
        one = Episode(make, CallRules("async", limit_s=0.2), "geo-7")
        await one.begin(TASK, lambda messages, tools: [1], 10)
        return await one.step({}, "act", encode)

    return asyncio.run(both())


def test_coroutines_run_in_the_workers_loop() -> None:
    assert play(0.0).following == encode("seen")
    assert set(Async.threads) == {threading.main_thread()}


def test_a_coroutine_that_takes_too_long_is_called_off() -> None:
    with pytest.raises(EpisodeFailed, match="TimeoutError"):
        play(5.0)
