"""A rollout that an environment of the package verifiers plays, from the side of the policy.

Such an environment plays a whole rollout itself, and asks a client for every turn. The client here
puts the request where `Rollout.next` finds it, and waits until `Rollout.answer` brings the turn.
"""

import asyncio
import queue
import signal
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from megatron_trace.envs.verifiers_messages import plain, schema
from megatron_trace.models.messages import Message, Tool

NEEDED = "it needs verifiers, 0.1.14 to 0.3.1, and all that docs/environments/adapters.md names"


@dataclass(frozen=True)
class Shared:
    """What the episodes of a worker share: an environment, and the loop of all its rollouts.

    verifiers plays all rollouts of an environment in one loop. So clients and locks that the
    environment has are used in that loop alone.
    """

    environment: Any
    loop: asyncio.AbstractEventLoop


@dataclass(frozen=True)
class Request:
    """What the environment asks the policy.

    Attributes:
        messages: the whole conversation.
    """

    messages: list[dict[str, Any]]
    tools: list[Tool]


class Rollout:
    """A rollout in the loop of `Shared`. Its public methods are called from other threads."""

    def __init__(self, shared: Shared, task: Mapping[str, Any]) -> None:
        """Start it."""
        self._loop = shared.loop
        self._events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._reply: asyncio.Future[Message] | None = None
        self._fault: ValueError | None = None
        play = self._play(shared.environment, dict(task))
        self._playing = asyncio.run_coroutine_threadsafe(play, self._loop)

    def next(self, limit_s: float) -> Request | Mapping[str, Any]:
        """What the environment asks next; at the end, its `RolloutOutput`.

        Raises:
            TimeoutError: it took longer than `limit_s` seconds.
            Exception: what the environment raised.
        """
        try:
            event = self._events.get(timeout=limit_s)
        except queue.Empty:
            limit = f"environment.options.verifiers_env.turn_timeout_s = {limit_s:g}"
            raise TimeoutError(f"the environment neither asks nor ends within {limit}") from None
        if isinstance(event, BaseException):
            raise event
        return event

    def answer(self, message: Message) -> None:
        """Give the policy's message to the request that waits for it."""
        self._loop.call_soon_threadsafe(self._settle, message)

    def cancel(self) -> None:
        """End it; the environment's cleanup still takes place."""
        self._playing.cancel()

    def _settle(self, message: Message) -> None:
        if self._reply is not None and not self._reply.done():
            self._reply.set_result(message)

    async def _play(self, environment: Any, task: dict[str, Any]) -> None:
        # SystemExit too: an environment must not end the loop of the others.
        try:
            output = await environment.run_rollout(task, Policy(self), "policy", {})
            self._events.put(self._fault or output)
        except BaseException as error:
            self._events.put(self._fault or error)
            if isinstance(error, asyncio.CancelledError):
                raise

    async def ask(self, messages: Sequence[Any], tools: Sequence[Any]) -> Message:
        """The policy's message."""
        if self._fault or self._reply is not None:
            # Kept: the environment may catch it and go on.
            self._fault = self._fault or ValueError(
                "the environment asks for two completions at the same time; an episode is one "
                "conversation"
            )
            raise self._fault
        self._reply = self._loop.create_future()
        try:
            request = Request([plain(one) for one in messages], [schema(one) for one in tools])
            # A second request of the same moment is seen before the policy has to speak.
            await asyncio.sleep(0)
            if self._fault:
                raise self._fault
            self._events.put(request)
            return await self._reply
        finally:
            self._reply = None


class Policy:
    """A `verifiers.clients.Client` that asks the policy; `loaded` registers it as one."""

    def __init__(self, rollout: Rollout) -> None:
        """The policy of a rollout."""
        self._rollout = rollout

    async def get_response(
        self,
        prompt: Sequence[Any],
        model: str,
        sampling_args: Any,
        tools: Sequence[Any] | None = None,
        **_: Any,
    ) -> Any:
        """The policy's turn, as `verifiers.types.Response`. It has neither token ids nor usage."""
        from verifiers.types import Response, ResponseMessage

        message = await self._rollout.ask(prompt, tools or ())
        said = ResponseMessage(
            **message,
            finish_reason="tool_calls" if "tool_calls" in message else "stop",
            is_truncated=False,
        )
        return Response(id="policy", created=0, model=model, message=said)

    async def close(self) -> None:
        """Nothing is open."""


def shared_by_episodes(id: str, arguments: Mapping[str, Any]) -> Shared:
    """A verifiers environment, and the loop of its rollouts in a separate thread.

    Raises:
        ValueError: it cannot be loaded, or not be played one rollout at a time.
    """
    ready: Future[Shared] = Future()

    def run() -> None:
        try:
            shared = Shared(loaded(id, arguments), asyncio.new_event_loop())
        except BaseException as error:
            ready.set_exception(error)
            return
        ready.set_result(shared)
        while True:
            # It leaves `run_forever` where an environment raises it in a task that it started.
            with suppress(SystemExit, KeyboardInterrupt):
                shared.loop.run_forever()

    # It is loaded in that thread too: a worker calls this within its own loop, and an environment
    # may start one while it is loaded.
    threading.Thread(target=run, name="verifiers", daemon=True).start()
    return ready.result()


def loaded(id: str, arguments: Mapping[str, Any]) -> Any:
    """A verifiers environment.

    Raises:
        ValueError: it cannot be loaded, or not be played one rollout at a time.
    """
    try:
        from verifiers.clients import Client
        from verifiers.envs import environment
        from verifiers.utils.env_utils import load_environment
    except ImportError as error:
        raise ValueError(f"{NEEDED} ({error})") from None
    Client.register(Policy)
    # An environment takes SIGINT and SIGTERM of its process for itself, and raises where it is not
    # made in the main thread. The run listens to them itself.
    module: Any = environment
    module.signal = SimpleNamespace(**{**vars(signal), "signal": lambda *_: None})
    try:
        made = load_environment(id, **arguments)
    # What the function of an environment raises is its own.
    except Exception as error:
        raise ValueError(f"verifiers.load_environment({id!r}) fails: {error}") from None
    try:
        grouped = made.requires_group_rollouts
    except AttributeError as error:
        raise ValueError(f"{NEEDED} ({error})") from None
    if grouped:
        raise ValueError(f"the rewards of {id} compare several rollouts; here each has its own")
    return made
