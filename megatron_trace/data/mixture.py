"""Tasks of several sources, in proportion to their weights, in a resumable order."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

from megatron_trace.data.tasks import Task, task_stream


@dataclass(frozen=True)
class WeightedTasks:
    """The tasks of a source.

    Attributes:
        tasks: at least one.
        weight: its part of all draws, in relation to the other weights; above 0.
        name: gives the source its own order.
    """

    tasks: Sequence[Task]
    weight: float = 1.0
    name: str = ""


def mixed_stream(sources: Sequence[WeightedTasks], seed: int, start: int = 0) -> Iterator[Task]:
    """An endless order over the tasks of all sources; each source has its own epochs.

    The n-th task is the first one of `mixed_stream(sources, seed, start=n)`, so the number of tasks
    taken so far is the whole state to keep. The tasks of a source come in the order of
    `task_stream`, whatever the other sources are.

    Raises:
        ValueError: a source without tasks, or a negative `start` (on the first `next`).
    """
    if start < 0:
        raise ValueError(f"mixed_stream needs start >= 0, got {start}")
    order = draws([source.weight for source in sources])
    taken = [0] * len(sources)
    for _ in range(start):
        taken[next(order)] += 1
    streams = [
        task_stream(source.tasks, seed, number, source.name)
        for source, number in zip(sources, taken, strict=True)
    ]
    for source in order:
        yield next(streams[source])


def draws(weights: Sequence[float]) -> Iterator[int]:
    """From which source every task is drawn.

    Of the first n draws a source of share w (its weight over the sum of the weights) gets n·w,
    rounded up or down. So every step has its shares, and not only the mean over many steps. That
    there is such an order is the chairman assignment problem (Tijdeman, Discrete Mathematics 32,
    1980). It is found as here: the k-th draw of a source must fall within the draws (k-1)/w to k/w,
    and of the sources whose time has begun the one is drawn whose time ends first.

    Args:
        weights: above 0.
    """
    total = sum(weights)
    shares = [weight / total for weight in weights]
    taken = [0] * len(weights)
    for number in count(1):
        begun = [source for source, share in enumerate(shares) if taken[source] < share * number]
        source = min(begun, key=lambda one: (taken[one] + 1) / shares[one])
        taken[source] += 1
        yield source
