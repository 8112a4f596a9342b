"""Which worker gets a job: the one whose prefix cache knows the tree, unless it is much busier."""

from collections.abc import Mapping

SLACK = 8
"""A job follows its tree to a worker with at most this many jobs more than the least loaded one."""


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
        least_loaded = min(free, key=lambda worker: (free[worker], worker))
        if not tree:
            return least_loaded
        # A tree keeps its first home even if some jobs go elsewhere: home was only busy, and its
        # cache knows more of the tree than any other.
        home = self._home.setdefault(tree, least_loaded)
        if home in free and free[home] <= free[least_loaded] + SLACK:
            return home
        return least_loaded

    def forget(self, worker: int) -> None:
        """Forget the trees of `worker`, whose cache is gone."""
        self._home = {tree: home for tree, home in self._home.items() if home != worker}
