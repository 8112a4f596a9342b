"""The sides of a bench: processes that do the same work in turn, on the same cores.

A side says when it is ready, then takes a step for each line that it reads. What it prints is the
library's own, except for lines that begin with `MARK`: they are JSON.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psutil

MARK = "bench side: "

Report = dict[str, Any]
"""What a side says: of a step `seconds`, `processor` (seconds, with all its child processes), and
what its work gives.
"""


@dataclass
class Side:
    """A side as the bench sees it.

    Attributes:
        first: report of the first step.
        steps: reports of the counted steps.
    """

    process: subprocess.Popen
    first: Report = field(default_factory=dict)
    steps: list[Report] = field(default_factory=list)

    def median(self, name: str) -> float:
        """Median of a number over the counted steps."""
        return statistics.median(self.values(name))

    def values(self, name: str) -> list[float]:
        """A number of every counted step."""
        return [step[name] for step in self.steps]

    def ask(self, turn: str = "step") -> Report:
        """Let the side take a turn; returns its report."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{turn}\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> Report:
        """Wait for the side's next report.

        Raises:
            SystemExit: the side has ended.
        """
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(MARK):
                return json.loads(line.removeprefix(MARK))
        command = " ".join(map(str, self.process.args))  # type: ignore[arg-type]
        raise SystemExit(f"a side ended with exit code {self.process.wait()}: {command}")


@contextmanager
def running(commands: Mapping[str, Sequence[Any]], threads: int) -> Iterator[dict[str, Side]]:
    """The sides of these commands, all ready; they end with the context.

    Args:
        threads: of each side, on a CPU.
    """
    # The sides take turns on the same cores: the threads of a side that waits must not spin.
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
    sides: dict[str, Side] = {}
    try:
        for name, command in commands.items():
            process = subprocess.Popen(
                list(map(str, command)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
            )
            sides[name] = Side(process)
            # One after the other: what one measures while it starts must not be disturbed.
            sides[name].answer()
        yield sides
    finally:
        for side in sides.values():
            side.process.stdin.close()  # type: ignore[union-attr]
            side.process.wait()


def take_turns(
    sides: Mapping[str, Side], *, warm_up: int, repeats: int, turn: str = "step"
) -> None:
    """Let all sides take `repeats` counted steps in alternating order, after `warm_up` others."""
    for number in range(warm_up + repeats):
        # Whoever comes second finds other caches and clock rates, so the order alternates.
        for side in list(sides.values())[:: 1 if number % 2 else -1]:
            report = side.ask(turn)
            side.first = side.first or report
            if number >= warm_up:
                side.steps.append(report)


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median and range in words."""
    median, low, high = statistics.median(values), min(values), max(values)
    return f"{median:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def ratios(side: Side, other: Side, name: str = "seconds") -> list[float]:
    """A number of `side` over that of `other`, turn by turn: what disturbs the machine in a turn
    disturbs both.
    """
    pairs = zip(side.values(name), other.values(name), strict=True)
    return [one / another for one, another in pairs]


def say(report: Report) -> None:
    """Report to the bench; called by the side."""
    # Libraries print without a final newline at times; the report must start its line.
    print(f"\n{MARK}{json.dumps(report)}", flush=True)


def next_turn() -> str:
    """Wait for the bench to ask for a turn; "" when there are no more. Called by the side."""
    return sys.stdin.readline().strip()


class Stopwatch:
    """Wall and processor seconds since it was made, of this process and its children."""

    def __init__(self) -> None:
        """Start it."""
        self._begin = (time.perf_counter(), processor_seconds())

    def times(self) -> Report:
        """The times so far."""
        seconds, processor = time.perf_counter(), processor_seconds()
        return {"seconds": seconds - self._begin[0], "processor": processor - self._begin[1]}


def processor_seconds() -> float:
    """Processor seconds that this process and its children have used so far."""
    this = psutil.Process()
    total = 0.0
    for process in [this, *this.children(recursive=True)]:
        times = process.cpu_times()
        total += times.user + times.system
    return total


def serve(turns: Mapping[str, Callable[[], Report]]) -> None:
    """Take the turns that the bench asks for, by name; timed."""
    say({})
    while turn := next_turn():
        watch = Stopwatch()
        report = turns[turn]()
        say(report | watch.times())
