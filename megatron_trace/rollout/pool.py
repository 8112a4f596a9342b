"""The fleet's workers and all of its fault tolerance: a dead worker loses only its unfinished jobs."""

import logging
import queue
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayTaskError

from megatron_trace.config import SettingError
from megatron_trace.rollout.actors import Reference, call
from megatron_trace.rollout.engine import EngineDied
from megatron_trace.rollout.jobs import Argument, Event, Job, Result, Slot
from megatron_trace.rollout.router import Router
from megatron_trace.rollout.weight_sync import PolicyWeights, WeightSync
from megatron_trace.rollout.worker import Worker

logger = logging.getLogger(__name__)

STOP_TIMEOUT_S = 5.0
"""How long closing waits for the engines to stop, before their actors are killed."""


class WorkerPool:
    """Runs jobs on workers, restarts the dead, and repeats what they left unfinished.

    Every call of a worker is watched, and its end comes as an `Event` into one queue. Events are
    handled only while the pool waits for something, by the thread that waits. So no state needs a
    lock.

    Attributes:
        slots: the workers.
        events: what went wrong and what was done about it, in order.
        deaths: workers that died.
        startup: seconds of each phase of every worker's last start.
    """

    def __init__(
        self,
        create: Callable[[], ActorHandle],
        size: int,
        concurrency: int,
        max_restarts: int,
        weight_sync: WeightSync,
    ) -> None:
        """Start `size` workers in parallel, without waiting: the first job waits for a worker.

        Args:
            create: makes an actor of `Worker`.
            size: workers.
            concurrency: most jobs in flight on one worker.
            max_restarts: restarts of one worker before the run stops.
            weight_sync: brings workers to the current weights.
        """
        self._create = create
        self._concurrency = concurrency
        self._max_restarts = max_restarts
        self._weight_sync = weight_sync
        self._router = Router()
        self._ended: queue.SimpleQueue[Event | Exception] = queue.SimpleQueue()
        self._push = 0
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

        Args:
            jobs: the first jobs; they are numbered in their order.
            on_done: `on_done(index, result)` is called when a job has ended. The jobs that it
                returns join the run and get the next numbers.

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
            event = self._next_event()
            if event.job is None:
                self._prepared(event)
                continue
            # An exception may have broken off an earlier run, whose jobs still end.
            if event.run != self._run:
                continue
            if not self._survived(event):
                # In front, so that a death delays its tree as little as possible.
                waiting.appendleft(event.job)
                continue
            result = event.future.result()
            results[event.job] = result
            if on_done is not None:
                more = on_done(event.job, result)
                waiting.extend(range(len(jobs), len(jobs) + len(more)))
                jobs.extend(more)
        return [results[index] for index in range(len(jobs))]

    def update_weights(self, weights: PolicyWeights, version: int) -> None:
        """Bring all workers that are ready to `version`; one that is starting gets it afterwards."""
        self._weight_sync.publish(weights, version)
        self._push += 1
        # A worker drops its cached histories with the old weights, so no tree has a home any more.
        self._router = Router()
        live = [slot for slot in self.slots if slot.ready]
        self._bring(live)
        # A worker that dies meanwhile starts again with a lower `push`. It is waited for only if it is
        # back, and is being brought to the version, before the others are done.
        while any(not slot.ready and slot.push == self._push for slot in live):
            self._take_idle_event()

    def interrupt(self, reason: Exception) -> None:
        """Raise `reason` from the wait under way, or from the next; for signal handlers too."""
        self._ended.put(reason)

    def close(self) -> None:
        """Stop all workers: their engines gently, as far as that is quick, then the actors."""
        stops = [call(slot.actor, Worker.stop) for slot in self.slots if slot.ready]
        if stops:
            ray.wait(stops, num_returns=len(stops), timeout=STOP_TIMEOUT_S)
        for slot in self.slots:
            ray.kill(slot.actor)
        self.slots.clear()

    def _take_idle_event(self) -> None:
        """Handle an event outside a run, where only jobs of a run that was broken off can end."""
        event = self._next_event()
        if event.job is None:
            self._prepared(event)

    def _next_event(self) -> Event:
        event = self._ended.get()
        if isinstance(event, Exception):
            raise event
        return event

    def _dispatch(self, jobs: Sequence[Job[Any, Any]], waiting: deque[int]) -> None:
        """Give waiting jobs to workers, in order, until no worker has room."""
        load = {slot.index: len(slot.jobs) for slot in self.slots if slot.ready}
        while waiting:
            job = jobs[waiting[0]]
            chosen = self._router.choose(job.tree, load, self._concurrency)
            # Only if all workers are full: no job behind this one could start either.
            if chosen is None:
                return
            slot, index = self.slots[chosen], waiting.popleft()
            slot.jobs.add(index)
            load[chosen] += 1
            self._watch(call(slot.actor, job.method, job.argument), slot, index)

    def _watch(
        self, reference: Reference[Any], slot: Slot, job: int | None = None, start: bool = False
    ) -> None:
        # The callback runs in a thread of Ray's, which must neither block nor touch the pool's
        # state.
        actor, run = slot.actor, self._run
        reference.future().add_done_callback(
            lambda future: self._ended.put(Event(slot, actor, future, run, job, start))
        )

    def _survived(self, event: Event) -> bool:
        """Whether the worker lived through the call; a dead one is restarted.

        Raises:
            Exception: any other error of the call.
        """
        # All calls of a dead actor fail, one after the other. Only the first finds it in its slot.
        current = event.slot.actor is event.actor
        if current and event.job is not None:
            event.slot.jobs.discard(event.job)
        error = event.future.exception()
        if error is None:
            return True
        if not isinstance(error, RayActorError | EngineDied):
            # A wrong setting is told in one line, without Ray's traceback of the worker.
            if isinstance(error, RayTaskError) and isinstance(error.cause, SettingError):
                raise error.cause
            raise error
        if current:
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
        # If only the engine died, its actor still lives and holds its share of the machine.
        ray.kill(slot.actor)
        self._router.forget(slot.index)
        slot.restarts += 1
        self._start(slot)

    def _start(self, slot: Slot) -> None:
        slot.actor, slot.ready, slot.jobs, slot.push = self._create(), False, set(), 0
        self._watch(call(slot.actor, Worker.start), slot, start=True)

    def _bring(self, slots: Sequence[Slot]) -> None:
        """Start to bring workers to the current weights; they take no jobs meanwhile.

        A worker may have died since it was last called. It is restarted, and brought when it is
        back: an engine that does not answer must take part in no broadcast.
        """
        slots = self._answering(slots)
        try:
            references = self._weight_sync.bring([slot.actor for slot in slots])
        except (RayActorError, EngineDied):
            # One has died since it answered.
            slots = self._answering(slots)
            references = self._weight_sync.bring([slot.actor for slot in slots])
        for slot in slots:
            slot.ready, slot.push = False, self._push
        for slot, reference in zip(slots, references, strict=True):
            self._watch(reference, slot)

    def _answering(self, slots: Sequence[Slot]) -> list[Slot]:
        """Those whose engines answer now; the other workers are restarted."""
        pings = [
            Event(slot, slot.actor, call(slot.actor, Worker.ping).future(), self._run)
            for slot in slots
        ]
        return [ping.slot for ping in pings if self._survived(ping)]

    def _prepared(self, event: Event) -> None:
        """A worker has started, or has new weights."""
        slot = event.slot
        if not self._survived(event) or slot.actor is not event.actor:
            return
        if event.start:
            self.startup[slot.index] = event.future.result()
            if slot.restarts:
                self._note(
                    f"worker {slot.index} is back (restart {slot.restarts} of {self._max_restarts})"
                )
        # Weights may have been pushed while it started.
        if slot.push == self._push:
            slot.ready = True
        else:
            self._bring([slot])

    def _note(self, text: str) -> None:
        logger.warning(text)
        self.events.append(text)


def _reason(error: BaseException) -> str:
    """An actor's death or its engine's, in a line."""
    cause = getattr(error, "cause", None) or error
    return str(cause).strip().split("\n")[0]
