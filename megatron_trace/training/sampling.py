"""Both stages of a step's sampling: from candidate tasks to grown trees."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from megatron_trace.allocation import Strategy
from megatron_trace.rollout.types import RolloutRequest, SampledRollout
from megatron_trace.tree import ROOT, Anchor, RolloutTree, Stage


class Sampler(Protocol):
    """What sampling needs of the fleet."""

    def open_trees(self, tasks: Sequence[dict[str, Any]]) -> list[RolloutTree]: ...

    def sample(
        self, requests: Sequence[RolloutRequest], on_done: Callable[[int, SampledRollout], None] | None = None
    ) -> list[SampledRollout]: ...


class Watcher(Protocol):
    """What the progress display hears."""

    def phase(self, name: str, total: int | None = None) -> None: ...

    def advance(self, n: int = 1) -> None: ...


@dataclass
class Spending:
    """What a step's sampling cost: seconds by phase, and prompt tokens in all and served from the cache."""

    seconds: dict[str, float] = field(default_factory=dict)
    prompt_tokens: int = 0
    cached_tokens: int = 0

    @contextmanager
    def phase(self, name: str, watcher: Watcher, total: int | None = None) -> Iterator[None]:
        """Time a phase and show it."""
        watcher.phase(name, total)
        begin = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin


def sample_trees(
    sampler: Sampler, strategy: Strategy, tasks: Sequence[dict[str, Any]], name: str, watcher: Watcher
) -> tuple[list[RolloutTree], Spending]:
    """Spend one step's budget on `tasks`, as TRACE does (arXiv 2606.11119): roots, then prefixes.

    Args:
        name: unique name of the step, from which the randomness of its rollouts is derived.

    Returns:
        The trees that were given rollouts, with the continuations grafted, and what it cost.
    """
    spending = Spending()
    with spending.phase("roots", watcher, len(tasks)):
        candidates = sampler.open_trees(tasks)
        counts = strategy.plan_roots(np.array([tree.turns[ROOT].prediction for tree in candidates]))
    trees = [tree for tree, count in zip(candidates, counts, strict=True) if count]
    plans: list[dict[Anchor, int]] = [{ROOT: int(count)} for count in counts if count]
    with spending.phase("bare rollouts", watcher, int(counts.sum())):
        grow(sampler, trees, plans, "bare", name, watcher, spending)
    with spending.phase("prefixes", watcher):
        plans = strategy.plan_prefixes(trees)
    with spending.phase("continuations", watcher, sum(sum(plan.values()) for plan in plans)):
        grow(sampler, trees, plans, "continuation", name, watcher, spending)
    return trees, spending


def grow(
    sampler: Sampler,
    trees: Sequence[RolloutTree],
    plans: Sequence[dict[Anchor, int]],
    stage: Stage,
    name: str,
    watcher: Watcher,
    spending: Spending,
) -> None:
    """Sample the planned rollouts of every tree at once and graft them."""
    places: list[tuple[RolloutTree, Anchor]] = []
    requests: list[RolloutRequest] = []
    for tree, plan in zip(trees, plans, strict=True):
        for anchor, count in plan.items():
            history_ids, state = tree.history_ids(anchor), tree.turns[anchor].state
            assert state is not None, "terminal turns are never planned"
            for _ in range(count):
                number = len(requests)
                places.append((tree, anchor))
                requests.append(
                    RolloutRequest(f"{name}/{stage}/{number}", history_ids, state, tree=str(tree.task["id"]))
                )
    rollouts = sampler.sample(requests, on_done=lambda *_: watcher.advance())
    for (tree, anchor), rollout in zip(places, rollouts, strict=True):
        tree.graft(anchor, rollout.turns, stage)
        spending.prompt_tokens += rollout.prompt_tokens
        spending.cached_tokens += rollout.cached_tokens
