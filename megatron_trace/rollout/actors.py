"""Calls of Ray actors that mypy and "find usages" can follow: the method itself, not its name."""

from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future, wait
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import ray
from ray.actor import ActorHandle

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)


class Reference(Protocol[Result_co]):
    """A result that is still being computed: Ray's `ObjectRef` with the type of the result."""

    def future(self) -> Future[Any]:
        """A future that ends with the result, or with what the call raised."""
        ...


def call(
    actor: ActorHandle,
    method: Callable[Concatenate[Any, Parameters], Coroutine[Any, Any, Result]],
    *arguments: Parameters.args,
    **named: Parameters.kwargs,
) -> Reference[Result]:
    """Start `method`, such as `Worker.rollout`, on `actor`, an actor of its class or of a subclass.

    Ray's handles offer methods by name only, and without types.
    """
    # If the actor's class is a subclass that overrides the method, Ray calls the override.
    return getattr(actor, method.__name__).remote(*arguments, **named)


def settled(references: Iterable[Reference[Result]]) -> list[Result]:
    """As `results`, but all calls have ended when an error is raised."""
    futures = [reference.future() for reference in references]
    wait(futures)
    return [future.result() for future in futures]


def results(references: Iterable[Reference[Result]]) -> list[Result]:
    """Wait for all calls and return their results in order; what one of them raised is raised."""
    return ray.get(list(references))
