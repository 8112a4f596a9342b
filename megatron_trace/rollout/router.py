"""Which worker gets a job: the one whose prefix cache knows the tree, unless it is much busier than another."""

from collections.abc import Mapping

SLACK = 8
"""A job follows its tree to a worker that has at most this many jobs more than the least loaded one."""


class Router:
    """Remembers where each tree was sampled."""

    def __init__(self) -> None:
        """No tree has a home yet."""
        self._home: dict[str, int] = {}

    def choose(self, tree: str, load: Mapping[int, int], concurrency: int) -> int | None:
        """The worker for a job of `tree` ("" for none), or None when all are full.

        Args:
            tree: name of the tree.
            load: jobs in flight on each usable worker.
            concurrency: most jobs in flight on one worker.
        """
        free = {worker: jobs for worker, jobs in load.items() if jobs < concurrency}
        if not free:
            return None
        least = min(free, key=lambda worker: (free[worker], worker))
        home = self._home.get(tree, least) if tree else least
        chosen = home if home in free and free[home] <= free[least] + SLACK else least
        self._home.setdefault(tree, chosen)
        return chosen

    def forget(self, worker: int | None = None) -> None:
        """Forget what the caches no longer hold: those of `worker`, or of all."""
        self._home = (
            {} if worker is None else {t: home for t, home in self._home.items() if home != worker}
        )
