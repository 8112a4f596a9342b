"""How the fleet cuts its work into jobs, with a pool that does them at once."""

from types import SimpleNamespace
from typing import Any

from megatron_trace.rollout.fleet import ROOT_BATCH, Fleet
from megatron_trace.rollout.types import ScoredRoot


class Pool:
    """Scores every prompt as its task's number, and keeps the jobs."""

    def __init__(self, workers: int) -> None:
        self.slots, self.jobs = [SimpleNamespace()] * workers, []

    def run(self, jobs: list[Any]) -> list[list[ScoredRoot]]:
        self.jobs = jobs
        return [[ScoredRoot([task["id"]], 0.5, {}) for task in job.argument] for job in jobs]


def opened(workers: int, tasks: int) -> tuple[list[Any], list[Any]]:
    """The trees of so many tasks, and the jobs that opened them."""
    fleet = Fleet.__new__(Fleet)
    pool = fleet._pool = Pool(workers)  # type: ignore[assignment]
    return fleet.open_trees([{"id": number} for number in range(tasks)]), pool.jobs


def test_every_worker_scores_its_share_of_the_prompts_and_keeps_the_trees() -> None:
    trees, jobs = opened(workers=3, tasks=10)
    assert [tree.task["id"] for tree in trees] == list(range(10))
    assert [job.trees for job in jobs] == [tuple("0123"), tuple("4567"), tuple("89")]


def test_a_call_scores_no_more_than_a_batch() -> None:
    _, jobs = opened(workers=1, tasks=ROOT_BATCH + 1)
    assert [len(job.argument) for job in jobs] == [ROOT_BATCH, 1]
    assert opened(workers=4, tasks=0) == ([], [])
