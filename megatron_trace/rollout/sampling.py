"""A step's sampling: from candidate tasks to grown trees."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from megatron_trace.allocation import Allocator, Plans
from megatron_trace.rollout.types import RolloutRequest, SampledRollout
from megatron_trace.tree import ROOT, Anchor, RolloutTree

OnDone = Callable[[int, SampledRollout], Iterable[RolloutRequest] | None]
"""Told the index and the rollout of each request as it ends; may return further requests."""


class Sampler(Protocol):
    """What sampling needs of the fleet."""

    def open_trees(self, tasks: Sequence[dict[str, Any]]) -> list[RolloutTree]: ...

    def sample(
        self, requests: Sequence[RolloutRequest], on_done: OnDone | None = None
    ) -> list[SampledRollout]: ...


class Watcher(Protocol):
    """What the progress display hears."""

    def phase(self, name: str, total: int | None = None) -> None: ...

    def advance(self, n: int = 1) -> None: ...


@dataclass
class Spending:
    """What a step's sampling cost: seconds by phase, and prompt tokens in all and served from the cache.

    Attributes:
        predictor: how good the predictions were on which it was planned.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    prompt_tokens: int = 0
    cached_tokens: int = 0
    predictor: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str, watcher: Watcher, total: int | None = None) -> Iterator[None]:
        """Time a phase and show it."""
        watcher.phase(name, total)
        begin = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin


def sample_trees(
    sampler: Sampler,
    allocator: Allocator,
    tasks: Sequence[dict[str, Any]],
    name: str,
    watcher: Watcher,
) -> tuple[list[RolloutTree], Spending]:
    """Spend one step's budget on `tasks`: the strategy plans, the sampler samples, until it plans nothing more.

    Args:
        name: unique name of the step, from which the randomness of its rollouts is derived.

    Returns:
        The trees that were given rollouts, and what it cost.
    """
    spending = Spending()
    with spending.phase("roots", watcher, len(tasks)):
        trees = sampler.open_trees(tasks)
        allocation = allocator.begin(trees, name)
    places: list[tuple[int, Anchor]] = []

    def requests(plans: Plans) -> list[RolloutRequest]:
        """One for each planned rollout; `places` says where each belongs."""
        new = []
        for index, plan in enumerate(plans):
            for anchor, count in plan.items():
                history_ids, state = (
                    trees[index].history_ids(anchor),
                    trees[index].turns[anchor].state,
                )
                assert state is not None, "terminal turns are never planned"
                for _ in range(count):
                    task = str(trees[index].task["id"])
                    new.append(
                        RolloutRequest(f"{name}/{len(places)}", history_ids, state, tree=task)
                    )
                    places.append((index, anchor))
        return new

    def ended(number: int, rollout: SampledRollout) -> None:
        allocation.ended(*places[number], rollout.turns)
        spending.prompt_tokens += rollout.prompt_tokens
        spending.cached_tokens += rollout.cached_tokens

    def streamed(first: int, index: int, rollout: SampledRollout) -> list[RolloutRequest]:
        watcher.advance()
        if not allocator.streams:
            return []
        ended(first + index, rollout)
        return requests(allocation.plan())

    while True:
        with spending.phase("planning", watcher):
            new = requests(allocation.plan())
        if not new:
            break
        first = len(places) - len(new)
        bare = all(anchor == ROOT for _, anchor in places[first:])
        with spending.phase("bare rollouts" if bare else "continuations", watcher, len(new)):
            rollouts = sampler.sample(new, on_done=partial(streamed, first))
        if not allocator.streams:
            for number, rollout in enumerate(rollouts, first):
                ended(number, rollout)
    trees, spending.predictor = allocator.finish(allocation)
    return trees, spending
