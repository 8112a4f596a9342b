"""What the pool keeps books on: jobs, the slots of the workers, and calls that ended."""

from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from ray.actor import ActorHandle

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
    """One of the pool's workers: the actor, or after a death the one in its place.

    Attributes:
        ready: the actor takes jobs.
        restarts: actors before this one.
        push: number of the push whose weights the actor has, or is receiving; 0 for those it
            started with.
        jobs: indices of the jobs that the actor is working on.
    """

    index: int
    actor: ActorHandle = None
    ready: bool = False
    restarts: int = 0
    push: int = 0
    jobs: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class Event:
    """A call of an actor that ended.

    Attributes:
        actor: who was called; by now another one may fill the slot.
        future: the call's result, or what it raised.
        run: number of the run in which the call was made.
        job: index of the job; None for a start and for new weights.
        start: the call was the actor's start.
    """

    slot: Slot
    actor: ActorHandle
    future: Future[Any]
    run: int
    job: int | None = None
    start: bool = False
