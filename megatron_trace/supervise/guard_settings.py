"""What a guard is told at its start. The rank imports this file, and not the guard's own code."""

from dataclasses import dataclass


@dataclass(frozen=True)
class GuardSettings:
    """See `guard.start`.

    Attributes:
        rank: number of the train rank that it guards.
        pid: process id of that rank.
        launcher: process id of torchrun; 0 if the rank was started without it.
        tag: environment tag of the rank's children.
        temp: folder of their temporary files.
        folder: the guard folder, shared by all ranks.
        stacks_file: where the stacks of a hang are kept.
        hang_s: seconds without progress after which the run ends; None never.
        grace_s: seconds from the request to end until the rank is killed.
        pipe, signals: descriptors to read messages and numbers of signals from.
    """

    rank: int
    pid: int
    launcher: int
    tag: str
    temp: str
    folder: str
    stacks_file: str
    hang_s: float | None
    grace_s: float
    pipe: int
    signals: int
