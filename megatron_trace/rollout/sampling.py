"""A step's sampling: from candidate tasks to grown trees."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from megatron_trace.allocation import Allocator
from megatron_trace.rollout.computed import ComputedHistories
from megatron_trace.rollout.failures import Attempts, Failure
from megatron_trace.rollout.types import RolloutRequest, SampledRollout
from megatron_trace.tree import ROOT, Anchor, RolloutTree

OnDone = Callable[[int, SampledRollout], Iterable[RolloutRequest] | None]
"""Callback: called with (index, rollout) when a request ends; may return new requests to sample."""


class Sampler(Protocol):
    """What sampling needs of the fleet; see there."""

    def open_trees(self, tasks: Sequence[dict[str, Any]]) -> Sequence[RolloutTree | Failure]:
        """A tree of only its root for every task, or why no episode could begin on it."""
        ...

    def sample(
        self, requests: Sequence[RolloutRequest], on_done: OnDone | None = None
    ) -> list[SampledRollout]:
        """A rollout for every request, in their order."""
        ...


class Progress(Protocol):
    """What shows a step's progress."""

    def phase(self, name: str, total: int | None = None) -> None:
        """A phase begins, of `total` units if that is known."""
        ...

    def advance(self, n: int = 1) -> None:
        """`n` units of the phase are done."""
        ...


@dataclass
class StepCost:
    """What a step cost, and on how good predictions it was planned.

    Attributes:
        seconds: by phase.
        prompt_tokens: over all turns.
        cached_tokens: those of them that the prefix cache served.
        known_tokens: those that some call of the step had computed before: the cache could have
            served them.
        engine_s, environment_s: seconds in which rollouts waited for the engine and for the
            environment, over all rollouts.
        predictor: metrics of the predictions.
        attempts: what was tried, and what of it failed in the environment.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    prompt_tokens: int = 0
    cached_tokens: int = 0
    known_tokens: int = 0
    engine_s: float = 0.0
    environment_s: float = 0.0
    predictor: dict[str, float] = field(default_factory=dict)
    attempts: Attempts = field(default_factory=Attempts)

    @contextmanager
    def phase(self, name: str, progress: Progress, total: int | None = None) -> Iterator[None]:
        """Time a phase and show it."""
        progress.phase(name, total)
        begin = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin

    def times(self) -> dict[str, float]:
        """Metric name -> seconds of every phase so far."""
        return {f"time/{name}": seconds for name, seconds in self.seconds.items()}


def sample_trees(
    sampler: Sampler,
    allocator: Allocator,
    tasks: Sequence[dict[str, Any]],
    name: str,
    progress: Progress,
) -> tuple[list[RolloutTree], StepCost]:
    """Spend one step's budget on `tasks`; the arguments are those of `StepSampling`.

    Returns:
        The trees that were given rollouts, and what the step cost.
    """
    sampling = StepSampling(sampler, allocator, tasks, name, progress)
    sampling.sample_roots()
    sampling.sample_prefixes()
    return sampling.finish()


class StepSampling:
    """The sampling of one step: first rollouts from roots, then continuations from prefixes.

    These are TRACE's two stages. Another strategy may plan no continuations, or plan them in
    several rounds. Rollouts are numbered through all rounds, in the order of their planning.
    """

    def __init__(
        self,
        sampler: Sampler,
        allocator: Allocator,
        tasks: Sequence[dict[str, Any]],
        name: str,
        progress: Progress,
    ) -> None:
        """Open a tree for every task.

        Args:
            sampler: opens trees and samples rollouts.
            allocator: plans the rollouts.
            tasks: candidates; some of them may be given no rollout.
            name: unique name of the step, from which the randomness of its rollouts is derived.
            progress: shows the phases.
        """
        self._sampler, self._allocator = sampler, allocator
        self._name, self._progress = name, progress
        self._cost = StepCost()
        with self._cost.phase("roots", progress, len(tasks)):
            trees = self._cost.attempts.opened(sampler.open_trees(tasks))
            self._allocation = allocator.begin(trees, name)
        self._computed = ComputedHistories()
        for tree in trees:
            self._computed.add(tree.history_ids(ROOT))
        self._targets: list[tuple[int, Anchor]] = []
        """By rollout number: index of the tree, and anchor, to which the rollout belongs."""
        self._planned_all = False

    def sample_roots(self) -> None:
        """Plan the first round and sample it: the trees are only roots yet."""
        self._sample_round()

    def sample_prefixes(self) -> None:
        """Plan and sample further rounds until the strategy plans nothing more."""
        while not self._planned_all:
            self._sample_round()

    def finish(self) -> tuple[list[RolloutTree], StepCost]:
        """End the step, from which the allocator learns.

        Returns:
            The trees that were given rollouts, and what the step cost.
        """
        trees, self._cost.predictor = self._allocator.finish(self._allocation)
        return trees, self._cost

    def _sample_round(self) -> None:
        with self._cost.phase("planning", self._progress):
            requests = self._plan()
        if not requests:
            self._planned_all = True
            return
        with self._cost.phase(self._stage(requests), self._progress, len(requests)):
            if self._allocator.streams:
                self._sample_and_plan(requests)
            else:
                self._sample(requests)

    def _plan(self) -> list[RolloutRequest]:
        """A request for each rollout that the strategy plans next."""
        requests = []
        for index, plan in enumerate(self._allocation.plan()):
            tree = self._allocation.trees[index]
            for anchor, count in plan.items():
                state = tree.turns[anchor].state
                assert state is not None, "terminal turns are never planned"
                history_ids = tree.history_ids(anchor)
                for _ in range(count):
                    # The number in the name gives two rollouts of one anchor their own randomness.
                    rollout_name = f"{self._name}/{len(self._targets)}"
                    task_id = str(tree.task["id"])
                    requests.append(RolloutRequest(rollout_name, history_ids, state, task_id))
                    self._targets.append((index, anchor))
        return requests

    def _stage(self, requests: Sequence[RolloutRequest]) -> str:
        """Name of the phase that samples what was planned last."""
        planned = self._targets[-len(requests) :]
        bare = all(anchor == ROOT for _, anchor in planned)
        return "bare rollouts" if bare else "continuations"

    def _sample(self, requests: Sequence[RolloutRequest]) -> None:
        """Sample what was planned last, then graft all of it.

        Grafting waits for the whole round: in the order of the numbers, and not in that of the
        rollouts' ends, the trees are the same whichever worker was faster.
        """
        first = len(self._targets) - len(requests)
        rollouts = self._sampler.sample(requests, lambda *_: self._progress.advance())
        for number, rollout in enumerate(rollouts, first):
            self._graft(number, rollout)

    def _sample_and_plan(self, requests: Sequence[RolloutRequest]) -> None:
        """Sample what was planned last; graft each rollout as it ends and sample what that adds."""
        first = len(self._targets) - len(requests)

        def on_done(index: int, rollout: SampledRollout) -> list[RolloutRequest]:
            self._progress.advance()
            self._graft(first + index, rollout)
            return self._plan()

        self._sampler.sample(requests, on_done)

    def _graft(self, number: int, rollout: SampledRollout) -> None:
        tree, anchor = self._targets[number]
        history_ids = self._allocation.trees[tree].history_ids(anchor)
        self._cost.known_tokens += self._computed.account(
            history_ids, rollout.turns, failed=rollout.failure is not None
        )
        if self._cost.attempts.ended(rollout.failure):
            self._allocation.ended(tree, anchor, rollout.turns)
        else:
            self._allocation.failed(tree, anchor)
        self._cost.prompt_tokens += rollout.prompt_tokens
        self._cost.cached_tokens += rollout.cached_tokens
        self._cost.engine_s += rollout.engine_s
        self._cost.environment_s += rollout.environment_s
