"""An episode as a worker plays it: its calls take place in threads, within a time limit, and end in
a checked result or in `EpisodeFailed`, whatever the environment does.
"""

import asyncio
import copy
import sysconfig
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from megatron_trace.envs.awaiting import settled
from megatron_trace.envs.environment import Environment, StepResult
from megatron_trace.envs.results import (
    BadResult,
    checked_messages,
    checked_result,
    checked_snapshot,
)
from megatron_trace.models.messages import Tool
from megatron_trace.rollout.failures import EpisodeFailed, Failure
from megatron_trace.rollout.turns import Following, Observation

Result = TypeVar("Result")

RETRY_WAIT_S = 1.0
"""Wait before a call is tried again; it doubles with every try."""

MESSAGE_CHARS, TRACE_CHARS = 300, 4000
"""A failure's message is cut to its beginning, its stack to its end."""

LIBRARIES = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
NOT_THE_AUTHORS = (*LIBRARIES, str(Path(__file__).parents[1]), "<frozen")
"""Where files lie that the author of an environment has not written."""


@dataclass(frozen=True)
class CallRules:
    """How the episodes of a worker call their environment.

    Attributes:
        name: of the environment.
        retryable: exceptions after which a call may be tried again; `Environment.retryable`.
        retries: how often (`environment.retries`).
        limit_s: time limit of a call (`environment.step_timeout_s`); None: none.
        all_s: time limit of an episode's calls together (`environment.task_timeout_s`); None: none.
        slots: what a call holds while it runs (`environment.calls` of them).
    """

    name: str = "environment"
    retryable: tuple[type[BaseException], ...] = ()
    retries: int = 0
    limit_s: float | None = None
    all_s: float | None = None
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(32))


@dataclass(frozen=True)
class Step:
    """What an action brought, checked.

    Attributes:
        following: None at the end of the episode, and if nothing can follow the action.
        snapshot: after the action; None at the end.
    """

    result: StepResult
    following: Following | None = None
    snapshot: dict[str, Any] | None = None


@dataclass(frozen=True)
class Raised:
    """What a call raised."""

    error: BaseException


class Episode:
    """One episode on one task; its methods raise `EpisodeFailed` and nothing else."""

    def __init__(self, make: Callable[[], Environment], rules: CallRules, task: str) -> None:
        """
        Args:
            make: makes an environment.
            task: the task's id, for messages.
        """
        self._make, self._rules, self._task = make, rules, task
        self._environment: Environment | None = None
        self._spent_s = 0.0

    async def begin(
        self,
        task: Mapping[str, Any],
        prompt_ids: Callable[[list[dict[str, Any]], Sequence[Tool]], list[int]],
        longest: int,
    ) -> tuple[list[int], dict[str, Any]]:
        """Start on `task`; returns the prompt's token ids and the snapshot after the start.

        Args:
            prompt_ids: token ids of messages and of tools.
            longest: most tokens of a rollout, prompt included.
        """

        settle = self._settle()

        def reset() -> tuple[list[dict[str, Any]], Sequence[Tool], dict[str, Any]]:
            environment = self._make()
            messages = checked_messages(settle(environment.reset(task)))
            return messages, environment.tools, checked_snapshot(environment.snapshot())

        messages, tools, state = await self._call("reset", reset)
        try:
            ids = prompt_ids(messages, tools)
        except Exception as error:
            raise EpisodeFailed(self._failure("the chat template", error)) from None
        if len(ids) >= longest:
            limit = f"rollout.max_history_tokens = {longest}"
            too_long = BadResult(f"a prompt of {len(ids)} tokens leaves no room within {limit}")
            raise EpisodeFailed(self._failure("reset", too_long))
        return ids, state

    async def step(
        self,
        state: Mapping[str, Any],
        action: Any,
        following: Callable[[Observation], Following | None],
    ) -> Step:
        """Take an action.

        Args:
            state: the snapshot before it.
            following: what follows the action and an observation.
        """
        # A step that fails leaves nothing behind: the next try restores `state` in a new object.
        current, self._environment = self._environment, None
        settle = self._settle()

        def step() -> tuple[Environment, Step]:
            nonlocal current
            environment, current = current, None
            if environment is None:
                environment = self._make()
                environment.restore(copy.deepcopy(state))
            result = checked_result(settle(environment.step(action)), environment.chat)
            if result.done:
                return environment, Step(result)
            snapshot = checked_snapshot(environment.snapshot())
            return environment, Step(result, following(result.observation), snapshot)

        self._environment, taken = await self._call("step", step)
        return taken

    def _settle(self) -> Callable[[Any], Any]:
        """Awaits coroutines in the worker's loop, where they may share what `load` returned."""
        loop = asyncio.get_running_loop()
        return partial(settled, loop=loop, limit_s=self._rules.limit_s)

    async def _call(self, name: str, call: Callable[[], Result]) -> Result:
        """The result of `call`, which is tried again where the environment allows it."""
        rules = self._rules
        for attempt in range(rules.retries + 1):
            if attempt:
                await asyncio.sleep(RETRY_WAIT_S * 2 ** (attempt - 1))
            async with rules.slots:
                result = await self._in_thread(call)
            if not isinstance(result, Raised):
                return result
            if not isinstance(result.error, rules.retryable):
                break
        assert isinstance(result, Raised)
        raise EpisodeFailed(self._failure(name, result.error))

    async def _in_thread(self, call: Callable[[], Result]) -> Result | Raised:
        """Run `call` within its own limit and what is left of the episode's."""
        rules, begin = self._rules, time.monotonic()
        limit_s, setting = rules.limit_s, f"environment.step_timeout_s = {rules.limit_s}"
        if rules.all_s is not None:
            left_s = max(rules.all_s - self._spent_s, 0.0)
            if limit_s is None or left_s < limit_s:
                limit_s, setting = left_s, f"environment.task_timeout_s = {rules.all_s}"
        result = await in_thread(call, limit_s, setting)
        self._spent_s += time.monotonic() - begin
        return result

    def _failure(self, name: str, error: BaseException) -> Failure:
        bad = isinstance(error, BadResult)
        text = str(error) if bad else f"{name} raised {described(error)}"
        trace = "".join(traceback.format_exception(error))[-TRACE_CHARS:]
        where = f"environment {self._rules.name}, task {self._task}"
        return Failure(_printable(f"{where}: {text}"), _printable(trace))


async def in_thread(
    call: Callable[[], Result], limit_s: float | None, setting: str
) -> Result | Raised:
    """Run `call` in a new thread; returns its result, or what it raised.

    A call that takes longer than `limit_s` counts as one that raised TimeoutError. No thread can be
    ended from outside: it is left behind, and nobody looks at its result.

    Args:
        setting: which sets the limit, and its value.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[Result | Raised] = loop.create_future()

    def settle(result: Result | Raised) -> None:
        if not outcome.done():
            outcome.set_result(result)

    def run() -> None:
        result: Result | Raised
        # SystemExit and KeyboardInterrupt too: a tool must not end the worker.
        try:
            result = call()
        except BaseException as error:
            result = Raised(error)
        # A thread that was left behind may outlive the loop.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, result)

    # Not a pool's thread: one that never returns would be missing in the pool for ever.
    threading.Thread(target=run, name="environment", daemon=True).start()
    try:
        return await asyncio.wait_for(outcome, limit_s)
    except TimeoutError:
        return Raised(TimeoutError(f"no answer within {setting}"))


def described(error: BaseException) -> str:
    """An exception in a line, with its place in the author's file.

    An exception that a library raised names the line of the author's file that called the library.
    """
    line = " ".join(traceback.format_exception_only(error)[-1].split())[:MESSAGE_CHARS]
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return line
    authors = [frame for frame in frames if not frame.filename.startswith(NOT_THE_AUTHORS)]
    place = (authors or frames)[-1]
    return f"{line} ({Path(place.filename).name}, line {place.lineno})"


def _printable(text: str) -> str:
    """`text` as every terminal and file can take it: without lone surrogates."""
    return text.encode(errors="replace").decode()
