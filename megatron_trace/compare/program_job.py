"""A trial on the real stack: `torchrun pretrain_trace.py`, as a user starts it."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from megatron_trace.compare.collect import prune, record_of_run
from megatron_trace.compare.grid import Trial
from megatron_trace.compare.record import write_record
from megatron_trace.compare.recorded_settings import STRATEGY_HASH, recorded_settings
from megatron_trace.compare.sweep import Sweep, trial_config, trial_overrides
from megatron_trace.config import RunConfig
from megatron_trace.files.atomic import write_text
from megatron_trace.report.metrics_file import Row, read_metrics

PROGRAM = Path(__file__).parents[2] / "pretrain_trace.py"

SHOWN_LOG_LINES = 12
"""Lines at the end of a failed run's log that are printed."""


class ProgramJob:
    """The program in a process. A trial that was cut off continues from its checkpoint."""

    def __init__(self, trial: Trial, sweep: Sweep) -> None:
        self.trial = trial
        self._sweep = sweep
        self._config = trial_config(trial, sweep)
        self._settings = recorded_settings(self._config, sweep)
        self._run_dir = sweep.run_dir(trial)
        self._log = sweep.log_file(trial, "log")
        self._exit = sweep.log_file(trial, "exit")
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._exit.unlink(missing_ok=True)
        # Kept beside the log, so that a later sitting sees whether the strategy's file was edited
        # in between.
        if STRATEGY_HASH in self._settings:
            strategy = sweep.log_file(trial, "strategy")
            write_text(strategy, self._settings[STRATEGY_HASH])
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("wb") as log:
            return subprocess.Popen(
                command(self.trial, self._sweep),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"TRACE_EXIT_FILE": str(self._exit.resolve())},
                # In the terminal's session a Ctrl-C would reach the run directly, and a second time
                # by `interrupt`.
                start_new_session=True,
            )

    def poll(self) -> bool:
        """Whether the program has ended."""
        return self._process.poll() is not None

    def progress(self) -> tuple[float, str]:
        """Share of the total that the run's metrics show, and the newest evaluation."""
        rows = read_metrics(self._run_dir)
        steps = _step_rows(rows)
        run = self._config.run
        share = rollouts_of(steps) / run.rollouts if run.rollouts else len(steps) / run.steps
        note = f"step {len(steps)}"
        scores = [row["evaluation"]["mean"] for row in rows if "mean" in row.get("evaluation", {})]
        if scores:
            note += f", held-out {scores[-1]:.3f}"
        return min(share, 1.0), note

    def interrupt(self) -> None:
        """Ctrl-C: the run saves its last finished step."""
        if not self.poll():
            self._process.send_signal(signal.SIGINT)

    def conclude(self) -> str:
        """Write the record of a run that has sampled its total."""
        # torchrun itself returns only 0 or 1.
        code = exit_code(self._process.returncode, self._exit)
        # A run that reached its time limit has saved and is no failure of the program.
        if code == os.EX_TEMPFAIL:
            return "stopped by stop.time_limit_min; give the same command to continue"
        if code:
            return f"exit code {code}, {self._log}:\n{_end_of(self._log)}"
        if lacking := shortfall(self._config.run, read_metrics(self._run_dir)):
            return f"{lacking}, {self._log}"
        record = record_of_run(self.trial, self._run_dir, self._settings)
        write_record(self._sweep.results, record)
        if not self._sweep.keep:
            prune(self._run_dir)
        return ""


def command(trial: Trial, sweep: Sweep) -> list[str]:
    """The command line of a trial on the real stack."""
    torchrun = str(Path(sys.executable).with_name("torchrun"))
    ranks = ["--standalone", "--nproc-per-node", str(sweep.ranks)]
    settings = trial_overrides(trial, sweep)
    return [torchrun, *ranks, str(PROGRAM), "--config", sweep.config, *settings]


def exit_code(code: int, file: Path) -> int:
    """The program's exit code: the number in `file` where `code` is not 0.

    `code` where there is no such number, as when the program was killed.
    """
    try:
        return int(file.read_text()) if code else 0
    except (OSError, ValueError):
        return code


def rollouts_of(steps: Sequence[Row]) -> int:
    """All that the steps sampled."""
    return int(sum(row["bare_rollouts"] + row["continuations"] for row in steps))


def shortfall(run: RunConfig, rows: Sequence[Row]) -> str:
    """What a run that ended without an error lacks to have sampled its total; nothing if it has.

    Args:
        rows: of the run's metrics.
    """
    steps = _step_rows(rows)
    if run.rollouts is None:
        return "" if len(steps) >= run.steps else f"ended after {len(steps)} of {run.steps} steps"
    sampled = rollouts_of(steps)
    if sampled >= run.rollouts:
        return ""
    taken = f"in {len(steps)} steps, of {run.steps} that it may take"
    return f"sampled {sampled} of {run.rollouts} rollouts {taken}"


def _step_rows(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if "evaluation" not in row]


def _end_of(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return "\n".join(f"  {line}" for line in lines[-SHOWN_LOG_LINES:])
