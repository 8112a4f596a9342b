"""Environments by name. A new one is a file of its own and one row here."""

from collections.abc import Callable
from typing import Any

from megatron_trace.envs.environment import Environment
from megatron_trace.envs.search_qa import search_qa_factory

FACTORIES: dict[str, Callable[..., Callable[[], Environment]]] = {"search_qa": search_qa_factory}


def environment_factory(name: str, **options: Any) -> Callable[[], Environment]:
    """The maker of episodes of environment `name`; what is heavy is built here once and shared by them all.

    Args:
        name: a registered name.
        options: the keyword arguments of that environment's factory.

    Raises:
        ValueError: `name` is unknown.
        TypeError: the environment has no such option, or needs one that is missing.
    """
    if name not in FACTORIES:
        raise ValueError(f"unknown environment {name!r}; known: {', '.join(sorted(FACTORIES))}")
    return FACTORIES[name](**options)
