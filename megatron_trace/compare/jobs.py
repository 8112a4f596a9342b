"""A cell at work: the program in a process of its own, or a simulation in one."""

import multiprocessing
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Protocol

from megatron_trace.compare.collect import prune, record_of_run
from megatron_trace.compare.grid import Cell
from megatron_trace.compare.record import write_record
from megatron_trace.compare.setup import (
    STRATEGY_HASH,
    Setup,
    cell_config,
    cell_overrides,
    settings_of,
    strategy_file,
)
from megatron_trace.config import RunConfig
from megatron_trace.report.metrics import Row, read_metrics

PROGRAM = Path(__file__).parents[2] / "pretrain_trace.py"
LAST_LINES = 12


class Job(Protocol):
    """What the runner asks of a cell at work."""

    cell: Cell

    def poll(self) -> bool:
        """Whether it has ended."""

    def progress(self) -> tuple[float, str]:
        """How much of it is done, in [0, 1], and a word on it."""

    def interrupt(self) -> None:
        """Ask it to end; `poll` tells when it has."""

    def conclude(self) -> str:
        """Once it has ended: write the record, or say what went wrong."""


class ProgramJob:
    """`torchrun pretrain_trace.py` as a user starts it. A cell that was cut off goes on where it stood."""

    def __init__(self, cell: Cell, setup: Setup) -> None:
        self.cell, self._setup = cell, setup
        self._config = cell_config(cell, setup)
        self._settings = settings_of(self._config, setup)
        self._run_dir = setup.runs / cell.name
        logs = setup.out / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        self._log, self._exit = logs / f"{cell.name}.log", logs / f"{cell.name}.exit"
        self._exit.unlink(missing_ok=True)
        if STRATEGY_HASH in self._settings:
            strategy_file(cell, setup).write_text(self._settings[STRATEGY_HASH], encoding="utf-8")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command(cell, setup),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"TRACE_EXIT_FILE": str(self._exit.resolve())},
                start_new_session=True,  # Ctrl-C comes from `interrupt`, once
            )

    def poll(self) -> bool:
        """Whether the program has ended."""
        return self._process.poll() is not None

    def progress(self) -> tuple[float, str]:
        """By the run's own metrics."""
        rows = read_metrics(self._run_dir)
        steps = [row for row in rows if "evaluation" not in row]
        scores = [row["evaluation"]["mean"] for row in rows if "mean" in row.get("evaluation", {})]
        run = self._config.run
        share = rollouts_of(steps) / run.rollouts if run.rollouts else len(steps) / run.steps
        return min(share, 1.0), f"step {len(steps)}" + (
            f", held-out {scores[-1]:.3f}" if scores else ""
        )

    def interrupt(self) -> None:
        """Ctrl-C: the run saves its last finished step."""
        if not self.poll():
            self._process.send_signal(signal.SIGINT)

    def conclude(self) -> str:
        """A run that has sampled its total becomes a record."""
        code = self._code()
        if code == os.EX_TEMPFAIL:
            return "stopped by stop.time_limit_min; the same command goes on"
        if code:
            return f"exit code {code}, {self._log}:\n{_tail(self._log)}"
        if lacking := shortfall(self._config.run, read_metrics(self._run_dir)):
            return f"{lacking}, {self._log}"
        write_record(self._setup.results, record_of_run(self.cell, self._run_dir, self._settings))
        if not self._setup.keep:
            prune(self._run_dir)
        return ""

    def _code(self) -> int:
        """The program's own exit code where it left one: torchrun says no more than 0 or 1."""
        return exit_code(self._process.returncode, self._exit)


class SimulationJob:
    """A cell in the simulator, in a process of its own."""

    def __init__(self, cell: Cell, setup: Setup) -> None:
        self.cell = cell
        spawn = multiprocessing.get_context("spawn")
        self._said, say = spawn.Pipe(duplex=False)
        self._process = spawn.Process(target=_simulate, args=(cell, setup, say), daemon=True)
        self._process.start()
        say.close()
        self._phase, self._error = "starting", "ended without a result"

    def poll(self) -> bool:
        """Whether the simulation has ended."""
        try:
            while self._said.poll():
                kind, text = self._said.recv()
                if kind == "phase":
                    self._phase = text
                else:
                    self._error = text
        except EOFError:  # it has closed its end
            self._process.join()
        return not self._process.is_alive()

    def progress(self) -> tuple[float, str]:
        """By what the process says."""
        return {"training": 0.1, "measuring": 0.6}.get(self._phase, 0.0), self._phase

    def interrupt(self) -> None:
        """It is seconds of work, and is done anew."""
        self._process.terminate()

    def conclude(self) -> str:
        """The process has written the record itself."""
        self.poll()
        return self._error


def _simulate(cell: Cell, setup: Setup, say: Connection) -> None:
    from megatron_trace.compare.simulated import record_of_simulation

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    try:
        write_record(
            setup.results, record_of_simulation(cell, setup, lambda text: say.send(("phase", text)))
        )
        say.send(("error", ""))
    except Exception:
        say.send(("error", traceback.format_exc()))


def start(cell: Cell, setup: Setup) -> Job:
    """Begin a cell."""
    return ProgramJob(cell, setup) if setup.world is None else SimulationJob(cell, setup)


def command(cell: Cell, setup: Setup) -> list[str]:
    """The command line of a cell on the real stack."""
    torchrun = str(Path(sys.executable).with_name("torchrun"))
    ranks = ["--standalone", "--nproc-per-node", str(setup.ranks)]
    return [torchrun, *ranks, str(PROGRAM), "--config", setup.config, *cell_overrides(cell, setup)]


def exit_code(code: int, file: Path) -> int:
    """The number in `file` where `code` is not 0; `code` where there is none, as when the program was killed."""
    try:
        return int(file.read_text()) if code else 0
    except (OSError, ValueError):
        return code


def rollouts_of(steps: Sequence[Row]) -> int:
    """All that the steps sampled."""
    return int(sum(row["bare_rollouts"] + row["continuations"] for row in steps))


def shortfall(run: RunConfig, rows: Sequence[Row]) -> str:
    """What a run that ended well lacks to have sampled its total, by the rows of its metrics; nothing if it has."""
    steps = [row for row in rows if "evaluation" not in row]
    if run.rollouts is None:
        return "" if len(steps) >= run.steps else f"ended after {len(steps)} of {run.steps} steps"
    spent = rollouts_of(steps)
    if spent >= run.rollouts:
        return ""
    return f"sampled {spent} of {run.rollouts} rollouts in {len(steps)} steps, of {run.steps} that it may take"


def _tail(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return "\n".join(f"  {line}" for line in lines[-LAST_LINES:])
