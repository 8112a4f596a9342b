"""The fleet's workers and all of its fault tolerance: a worker that dies loses only its unfinished jobs."""

import logging
import queue
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import ray
from ray.exceptions import RayActorError

from megatron_trace.rollout.actors import Reference, call
from megatron_trace.rollout.router import Router
from megatron_trace.rollout.types import EngineDied
from megatron_trace.rollout.weights import WeightUpdate
from megatron_trace.rollout.worker import Worker

logger = logging.getLogger(__name__)

PATIENCE_S = 5.0
"""How long closing waits for the engines to end by themselves."""


Argument = TypeVar("Argument")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Job(Generic[Argument, Result]):
    """One call of a worker's method, which any worker may serve.

    Attributes:
        method: of the workers' class, such as `Worker.rollout`.
        argument: its only argument.
        tree: name of the tree that the call belongs to; "" for none.
    """

    method: Callable[[Any, Argument], Coroutine[Any, Any, Result]]
    argument: Argument
    tree: str = ""


@dataclass
class Slot:
    """A worker's place, and the actor that now fills it."""

    index: int
    actor: Any = None
    ready: bool = False
    restarts: int = 0
    update: WeightUpdate | None = None
    jobs: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class Event:
    """A call that ended: of a job, or (`job` None) of a preparation, a start or new weights."""

    slot: Slot
    actor: Any
    future: Future
    job: int | None = None
    run: int = 0


class WorkerPool:
    """Runs jobs on workers, restarts the dead, and repeats what they left undone.

    Attributes:
        slots: the workers.
        events: what went wrong and what was done about it, in order.
        deaths: workers that died.
        startup: seconds of each phase of every worker's last start.
    """

    def __init__(
        self,
        create: Callable[[], Any],
        size: int,
        concurrency: int,
        max_restarts: int,
        resync: Callable[[Any], None] | None = None,
    ) -> None:
        """Start `size` workers in parallel, without waiting: the first job that needs one waits for it.

        Args:
            create: makes an actor of `Worker`.
            size: workers.
            concurrency: most jobs in flight on one worker.
            max_restarts: restarts of one worker before the run stops.
            resync: brings a restarted actor to the current weights where they do not travel by `update_weights`.
        """
        self._create = create
        self._concurrency = concurrency
        self._max_restarts = max_restarts
        self._resync = resync
        self._router = Router()
        self._ended: queue.SimpleQueue[Event | Exception] = queue.SimpleQueue()
        self._update: WeightUpdate | None = None
        self._run = 0
        self.slots = [Slot(index) for index in range(size)]
        self.events: list[str] = []
        self.deaths = 0
        self.startup: list[dict[str, float]] = [{} for _ in self.slots]
        for slot in self.slots:
            self._start(slot)

    def wait(self) -> None:
        """Wait until all workers are ready."""
        while not all(slot.ready for slot in self.slots):
            self._take_idle_event()

    def run(
        self,
        jobs: Sequence[Job[Argument, Result]],
        on_done: Callable[[int, Result], Sequence[Job[Argument, Result]]] | None = None,
    ) -> list[Result]:
        """Run all jobs and return their results in order.

        `on_done(index, result)` is told each as it comes. Jobs that it returns join the run and get the next indices.

        Raises:
            RuntimeError: a worker died more often than `max_restarts`.
            Exception: what a job raised in a worker that lives.
        """
        self._run += 1
        jobs = list(jobs)
        waiting = deque(range(len(jobs)))
        results: dict[int, Result] = {}
        while len(results) < len(jobs):
            self._dispatch(jobs, waiting)
            event = self._next()
            if event.job is None:
                self._prepared(event)
            elif event.run != self._run:
                continue  # of a run that an exception ended
            elif self._survived(event):
                results[event.job] = event.future.result()
                if on_done is not None:
                    more = on_done(event.job, results[event.job])
                    waiting.extend(range(len(jobs), len(jobs) + len(more)))
                    jobs.extend(more)
            else:
                waiting.appendleft(event.job)
        return [results[index] for index in range(len(jobs))]

    def update_weights(self, update: WeightUpdate) -> None:
        """Bring all workers that live to `update`; one that is being restarted gets it before its first job."""
        self._update = update
        self._router = Router()
        live = [slot for slot in self.slots if slot.ready]
        for slot in live:
            self._send_weights(slot)
        while any(not slot.ready and slot.update is update for slot in live):
            self._take_idle_event()

    def interrupt(self, reason: Exception) -> None:
        """Raise `reason` from the wait under way, or from the next one. A signal handler may call it."""
        self._ended.put(reason)

    def close(self) -> None:
        """Stop all workers: their engines gently, as far as that is quick, then the actors."""
        engines = [call(slot.actor, Worker.stop) for slot in self.slots if slot.ready]
        if engines:
            ray.wait(engines, num_returns=len(engines), timeout=PATIENCE_S)
        for slot in self.slots:
            ray.kill(slot.actor)
        self.slots.clear()

    def _take_idle_event(self) -> None:
        """Handle what ends while no run is under way; jobs that still end are those of a run that was broken off."""
        event = self._next()
        if event.job is None:
            self._prepared(event)

    def _next(self) -> Event:
        event = self._ended.get()
        if isinstance(event, Exception):
            raise event
        return event

    def _dispatch(self, jobs: Sequence[Job[Any, Any]], waiting: deque[int]) -> None:
        load = {slot.index: len(slot.jobs) for slot in self.slots if slot.ready}
        while waiting:
            job = jobs[waiting[0]]
            chosen = self._router.choose(job.tree, load, self._concurrency)
            if chosen is None:
                return
            slot, index = self.slots[chosen], waiting.popleft()
            slot.jobs.add(index)
            load[chosen] += 1
            self._watch(call(slot.actor, job.method, job.argument), slot, index)

    def _watch(self, reference: Reference[Any], slot: Slot, job: int | None = None) -> None:
        actor, run = slot.actor, self._run
        reference.future().add_done_callback(
            lambda future: self._ended.put(Event(slot, actor, future, job, run))
        )

    def _survived(self, event: Event) -> bool:
        """Whether the worker lived through the call; one that did not is restarted. Other errors are raised."""
        if event.slot.actor is event.actor and event.job is not None:
            event.slot.jobs.discard(event.job)
        error = event.future.exception()
        if error is None:
            return True
        if not isinstance(error, RayActorError | EngineDied):
            raise error
        if event.slot.actor is event.actor:
            self._restart(event.slot, error)
        return False

    def _restart(self, slot: Slot, error: Exception) -> None:
        lost = len(slot.jobs) + 1
        self.deaths += 1
        self._note(
            f"worker {slot.index} died, its {lost} unfinished calls are repeated: {_reason(error)}"
        )
        if slot.restarts == self._max_restarts:
            raise RuntimeError(
                f"worker {slot.index} died after {slot.restarts} restarts"
            ) from error
        ray.kill(slot.actor)
        self._router.forget(slot.index)
        slot.restarts += 1
        self._start(slot)

    def _start(self, slot: Slot) -> None:
        slot.actor, slot.ready, slot.jobs, slot.update = self._create(), False, set(), self._update
        self._watch(call(slot.actor, Worker.start, self._update), slot)

    def _send_weights(self, slot: Slot) -> None:
        assert self._update is not None
        slot.ready, slot.update = False, self._update
        self._watch(call(slot.actor, Worker.update_weights, self._update), slot)

    def _prepared(self, event: Event) -> None:
        """A worker has started or has new weights."""
        slot = event.slot
        if not self._survived(event) or slot.actor is not event.actor:
            return
        if slot.update is not self._update:
            self._send_weights(slot)
            return
        slot.ready = True
        result = event.future.result()
        if isinstance(result, dict):
            self.startup[slot.index] = result
            if slot.restarts:
                self._note(
                    f"worker {slot.index} is back (restart {slot.restarts} of {self._max_restarts})"
                )
                if self._resync is not None:
                    self._resync(slot.actor)

    def _note(self, text: str) -> None:
        logger.warning(text)
        self.events.append(text)


def _reason(error: BaseException) -> str:
    """An actor's death or its engine's, in a line."""
    cause = getattr(error, "cause", None) or error
    return str(cause).strip().split("\n")[0]
