"""The pool with workers of a few lines: jobs that bring more jobs, and workers that die."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import pytest
import ray
from ray.exceptions import RayActorError

from megatron_trace.rollout.pool import Job, WorkerPool

NO_WEIGHTS: Any = None


class Reference:
    """What a call returns: `work()`, or what it raises."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._future: Future = Future()
        try:
            self._future.set_result(work())
        except RayActorError as error:
            self._future.set_exception(error)

    def future(self) -> Future:
        return self._future


class Method:
    """An actor's method."""

    def __init__(self, work: Callable[..., Any]) -> None:
        self._work = work

    def remote(self, *arguments: Any) -> Reference:
        return Reference(lambda: self._work(*arguments))


class Doubler:
    """What the jobs call; `Workers` stands for its actors."""

    async def double(self, number: int) -> int:
        return 2 * number


class Workers:
    """Makes actors that double numbers; the calls whose place in the order is in `fatal` kill
    theirs.
    """

    def __init__(self, fatal: Sequence[int] = ()) -> None:
        self.asked: list[int] = []
        self.loaded: list[int] = []
        self.die_while_loading = 0
        self._fatal = set(fatal)
        self.start, self.double = Method(lambda: {}), Method(self._double)
        self.load, self.ping = Method(self._load), Method(self._ping)
        self.deaths_unseen = 0

    def __call__(self) -> "Workers":
        return self

    def _double(self, number: int) -> int:
        self.asked.append(number)
        if len(self.asked) - 1 in self._fatal:
            raise RayActorError()
        return 2 * number

    def _ping(self) -> None:
        if self.deaths_unseen:
            self.deaths_unseen -= 1
            raise RayActorError()

    def _load(self, version: int) -> None:
        if self.die_while_loading:
            self.die_while_loading -= 1
            raise RayActorError()
        self.loaded.append(version)


class Deliveries:
    """A way of the weights that tells the workers only their version."""

    version = 0

    def publish(self, weights: Any, version: int) -> None:
        self.version = version

    def bring(self, workers: Sequence[Any]) -> list[Reference]:
        return [worker.load.remote(self.version) for worker in workers]


def make_pool(workers: Workers, size: int = 2) -> WorkerPool:
    return WorkerPool(
        create=workers, size=size, concurrency=2, max_restarts=3, weight_sync=Deliveries()
    )


def jobs(*numbers: int) -> list[Job[int, int]]:
    return [Job(Doubler.double, number) for number in numbers]


def halves(index: int, result: int) -> list[Job[int, int]]:
    """For 2n the jobs n // 2 and n // 2 again, down to 0."""
    return jobs(*[result // 4] * 2) if result else []


@pytest.fixture(autouse=True)
def nothing_to_kill(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "kill", lambda actor: None)


def test_results_are_in_the_order_of_the_jobs() -> None:
    assert make_pool(Workers()).run(jobs(5, 1, 4, 2, 3)) == [10, 2, 8, 4, 6]


def test_jobs_that_a_result_brings_join_the_run_and_get_the_next_indices() -> None:
    heard: dict[int, int] = {}

    def on_done(index: int, result: int) -> list[Job[int, int]]:
        heard[index] = result
        return halves(index, result)

    results = make_pool(Workers()).run(jobs(4), on_done)
    assert results == [8, 4, 4, *[2] * 4, *[0] * 8]
    assert [heard[index] for index in range(len(results))] == results


def test_a_run_without_jobs_is_over_at_once() -> None:
    assert make_pool(Workers()).run([], lambda index, result: jobs(1)) == []


def test_the_given_jobs_stay_as_they_are() -> None:
    given = jobs(4)
    make_pool(Workers()).run(given, halves)
    assert given == jobs(4)


def test_a_death_repeats_only_what_was_unfinished() -> None:
    workers = Workers(fatal=[0, 4, 9])
    pool = make_pool(workers)
    assert sorted(pool.run(jobs(4, 4), halves)) == sorted(
        make_pool(Workers()).run(jobs(4, 4), halves)
    )
    assert pool.deaths == 3
    assert len(workers.asked) <= 30 + 3 * 2  # a worker has two calls under way at most


def test_a_worker_that_dies_too_often_ends_the_run() -> None:
    with pytest.raises(RuntimeError, match="died after 3 restarts"):
        make_pool(Workers(fatal=range(4)), size=1).run(jobs(1))


def test_every_worker_gets_a_new_version_once() -> None:
    workers = Workers()
    pool = make_pool(workers)
    pool.wait()
    pool.update_weights(NO_WEIGHTS, 7)
    assert workers.loaded == [7, 7]
    pool.run(jobs(1, 2, 3))
    assert workers.loaded == [7, 7]


def test_a_worker_that_starts_meanwhile_gets_the_version_before_its_first_job() -> None:
    workers = Workers()
    pool = make_pool(workers, size=1)
    pool.update_weights(NO_WEIGHTS, 7)
    assert workers.loaded == [] and not workers.asked
    pool.run(jobs(1))
    assert workers.loaded == [7]


def test_a_restarted_worker_gets_the_version_of_the_others() -> None:
    workers = Workers(fatal=[1])
    pool = make_pool(workers)
    pool.wait()
    pool.update_weights(NO_WEIGHTS, 7)
    assert pool.run(jobs(1, 2, 3, 4)) == [2, 4, 6, 8]
    pool.wait()
    assert pool.deaths == 1 and workers.loaded == [7, 7, 7]
    assert [event.split(" (")[0] for event in pool.events[1:]] == ["worker 1 is back"]


def test_a_worker_that_dies_while_it_loads_is_restarted_and_loads_again() -> None:
    workers = Workers()
    pool = make_pool(workers)
    pool.wait()
    workers.die_while_loading = 1
    pool.update_weights(NO_WEIGHTS, 7)
    assert pool.run(jobs(1, 2, 3)) == [2, 4, 6]
    pool.wait()
    assert pool.deaths == 1 and workers.loaded == [7, 7]


def test_a_worker_that_died_while_nobody_sampled_gets_the_version_when_it_is_back() -> None:
    workers = Workers()
    pool = make_pool(workers)
    pool.wait()
    workers.deaths_unseen = 1
    pool.update_weights(NO_WEIGHTS, 7)
    assert pool.run(jobs(1, 2, 3)) == [2, 4, 6]
    pool.wait()
    assert pool.deaths == 1 and workers.loaded == [7, 7]
