"""A trial at work: the program in a process, or a simulation in one."""

from typing import Protocol

from megatron_trace.compare.grid import Trial
from megatron_trace.compare.program_job import ProgramJob
from megatron_trace.compare.simulation_job import SimulationJob
from megatron_trace.compare.sweep import Sweep


class Job(Protocol):
    """What the runner asks of a trial at work."""

    trial: Trial

    def poll(self) -> bool:
        """Whether it has ended."""

    def progress(self) -> tuple[float, str]:
        """How much of it is done, in [0, 1], and a note on it."""

    def interrupt(self) -> None:
        """Ask it to end; `poll` tells when it has."""

    def conclude(self) -> str:
        """Once it has ended: write the record and return "", or return what went wrong."""


def start(trial: Trial, sweep: Sweep) -> Job:
    """Begin a trial."""
    # Both kinds are processes: several trials run at once, and one that crashes takes no other with
    # it.
    return ProgramJob(trial, sweep) if sweep.world is None else SimulationJob(trial, sweep)
