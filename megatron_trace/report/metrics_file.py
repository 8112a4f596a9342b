"""`metrics.jsonl`: every number of a run, a line for each step and each evaluation."""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from megatron_trace.files.atomic import write_bytes
from megatron_trace.report.loggers import DetachedLogger, close_all

FILE = "metrics.jsonl"

Row = dict[str, Any]
"""One line of `metrics.jsonl`: a step's numbers, or an evaluation where it has the key
`evaluation`.
"""


class MetricsWriter:
    """Appends rows to `<run_dir>/metrics.jsonl`, and hands their numbers to the loggers.

    A killed process leaves at most one torn line, at the end; opening the file again removes it.
    Rows that a full disk refuses are kept and written with the next.

    Attributes:
        events: what a reader of the run should know of the file and of the loggers.
    """

    def __init__(
        self, run_dir: Path | str, *, done: int = 0, loggers: Sequence[DetachedLogger] = ()
    ) -> None:
        """Open the file, in a new folder where needed.

        Rows after step `done` are removed, earlier ones stay.
        """
        run_dir = Path(run_dir)
        run_dir.mkdir(parents=True, exist_ok=True)
        self.events: list[str] = []
        if damaged := _drop_rows(run_dir / FILE, done):
            self.events.append(f"{damaged} damaged lines of {run_dir / FILE} were removed")
        # Without a buffer, which would keep a part of a line after an error: a reader of the file,
        # and whoever continues a killed run, finds every finished step.
        self._file = (run_dir / FILE).open("ab", buffering=0)
        self._waiting = b""
        self._loggers = loggers

    def write(self, row: Mapping[str, Any]) -> None:
        """Append `row`, which has a `step`, as one line.

        Raises:
            OSError: the file cannot be written now. The row is kept, and written with the next.
        """
        numbers = _numbers(row)
        for logger in self._loggers:
            logger.write(int(row["step"]), numbers)
            self.events += logger.take_events()
        self._waiting += json.dumps(dict(row), default=float).encode() + b"\n"
        self.flush()

    def take_events(self) -> list[str]:
        """`events`, which are then empty."""
        taken, self.events = self.events, []
        return taken

    def flush(self) -> None:
        """Write the rows that wait, if there are any.

        Raises:
            OSError: the file cannot be written now; they wait on.
        """
        end = os.fstat(self._file.fileno()).st_size
        left = self._waiting
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError:
            # A part of a line would spoil the line that comes next.
            with suppress(OSError):
                self._file.truncate(end)
            raise
        self._waiting = b""

    def close(self) -> None:
        """Close the file and the loggers. Rows that still wait are lost; see `flush`."""
        self._file.close()
        close_all(self._loggers)

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def read_metrics(run_dir: Path | str) -> list[Row]:
    """All rows in order, without damaged lines and without a torn last one.

    A run without metrics gives an empty list.
    """
    path = Path(run_dir) / FILE
    rows = [_row(line) for line in _whole_lines(path)] if path.exists() else []
    return [row for row in rows if row is not None]


def _whole_lines(path: Path) -> list[bytes]:
    # What follows the last line end is a line that a killed process did not finish.
    return [line for line in path.read_bytes().split(b"\n")[:-1] if line.strip()]


def _row(line: bytes) -> Row | None:
    """The row of a line; None if the line is damaged, as by a power cut."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None


def _drop_rows(path: Path, done: int) -> int:
    """Keep only whole rows of steps up to `done`: the steps after it are done again.

    Returns:
        The number of damaged lines, which are removed as well.
    """
    if not path.exists():
        return 0
    lines = _whole_lines(path)
    rows = {line: _row(line) for line in lines}
    kept = [line for line in lines if (row := rows[line]) is not None and row["step"] <= done]
    content = b"".join(line + b"\n" for line in kept)
    if content != path.read_bytes():
        write_bytes(path, content)
    return sum(rows[line] is None for line in lines)


def _numbers(row: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of a row, those of nested mappings under `outer/inner`, without the step."""
    numbers: dict[str, float] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            numbers |= _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float, np.number)) and name != "step":
            numbers[prefix + name] = float(value)
    return numbers
