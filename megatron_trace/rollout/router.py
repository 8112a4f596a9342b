"""Which worker gets a job: one whose prefix cache knows the tree, unless it is much busier."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

SLACK = 8
"""A job follows its tree to a worker with at most this many jobs more than the least loaded one."""


class Router:
    """Remembers where each tree was sampled."""

    def __init__(self) -> None:
        """No tree has a home yet."""
        self._homes: defaultdict[str, list[int]] = defaultdict(list)

    def choose(self, trees: Sequence[str], load: Mapping[int, int], concurrency: int) -> int | None:
        """The worker for a job of `trees`, or None when all are full.

        Args:
            trees: names of the trees that the job concerns; the first decides.
            load: jobs in flight on each usable worker.
            concurrency: most jobs in flight on one worker.
        """
        free = {worker: jobs for worker, jobs in load.items() if jobs < concurrency}
        if not free:
            return None
        least_loaded = min(free, key=lambda worker: (free[worker], worker))
        most = free[least_loaded] + SLACK
        # A tree keeps its homes in their order: the cache of the first knows most of it.
        homes = self._homes[trees[0]] if trees else []
        near = [home for home in homes if home in free and free[home] <= most]
        chosen = near[0] if near else least_loaded
        for tree in trees:
            if chosen not in self._homes[tree]:
                self._homes[tree].append(chosen)
        return chosen

    def forget(self, worker: int) -> None:
        """Forget the trees of `worker`, whose cache is gone."""
        for homes in self._homes.values():
            if worker in homes:
                homes.remove(worker)
