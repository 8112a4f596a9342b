"""Before there is a model, the train ranks share work that rank 0 alone would take minutes for."""

import os
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, TypeVar

from torch import distributed

from megatron_trace.config import SettingError
from megatron_trace.policy.distributed import join
from megatron_trace.policy.ranks import LEADER_TIMEOUT, LeaderLost

Item = TypeVar("Item")
Result = TypeVar("Result")


class SharedWork:
    """Splits items over the train ranks; a single rank does all itself.

    Build it on all ranks. Rank 0 uses `map`, and `end` at the end. The other ranks use `follow`,
    which returns after `end`.
    """

    def __init__(self) -> None:
        """Join the other train ranks."""
        self._size = int(os.environ.get("WORLD_SIZE", 1))
        if self._size > 1:
            join()
            self._group = distributed.new_group(backend="gloo", timeout=LEADER_TIMEOUT)

    def map(
        self, function: Callable[[Sequence[Item]], list[Result]], items: Sequence[Item]
    ) -> list[Result]:
        """The results of all items, in their order. Only on rank 0.

        Args:
            function: takes some of the items and returns a result for each. It is sent to the other
                ranks by pickle, as are items and results.

        Raises:
            SettingError, RuntimeError: what the function raises, on whichever rank.
        """
        if self._size == 1:
            return function(items)
        parts = [items[part] for part in even_parts(len(items), self._size)]
        own = self._receive([(function, part) for part in parts])
        everyone: list[Any] = [None] * self._size
        distributed.gather_object(_done(own), everyone, dst=0, group=self._group)
        for error in everyone:
            if isinstance(error, Exception):
                raise error
        return [result for part in everyone for result in part]

    def follow(self) -> bool:
        """Do the parts that rank 0 gives out, until it ends. Not on rank 0.

        Returns:
            Whether the run continues.

        Raises:
            LeaderLost: rank 0 died.
        """
        try:
            while not isinstance(work := self._receive(None), bool):
                distributed.gather_object(_done(work), dst=0, group=self._group)
        except RuntimeError as error:  # of the connection
            raise LeaderLost(str(error)) from None
        return work

    def end(self, *, go_on: bool) -> None:
        """Let `follow` return `go_on` on the other ranks. Only on rank 0."""
        if self._size > 1:
            self._receive([go_on] * self._size)

    def _receive(self, everyone: list[Any] | None) -> Any:
        """This rank's part of what rank 0 sends."""
        box: list[Any] = [None]
        distributed.scatter_object_list(box, everyone, src=0, group=self._group)
        return box[0]


def even_parts(count: int, parts: int) -> list[slice]:
    """`count` items in `parts` runs that differ by one item at most."""
    ends = [count * part // parts for part in range(parts + 1)]
    return [slice(*pair) for pair in pairwise(ends)]


def _done(work: tuple[Callable[[Sequence[Any]], list[Any]], Sequence[Any]]) -> Any:
    """The results of a part, or the error: rank 0 tells it."""
    function, items = work
    try:
        return function(items)
    except SettingError as error:
        return error
    # Others may not survive being pickled.
    except Exception as error:
        return RuntimeError(f"{type(error).__name__}: {error}")
