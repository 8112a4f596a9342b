"""`metrics.jsonl`: every number of a run, a line for each step and each evaluation."""

import json
from collections.abc import Mapping, Sequence
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
    """

    def __init__(
        self, run_dir: Path | str, *, done: int = 0, loggers: Sequence[DetachedLogger] = ()
    ) -> None:
        """Open the file, in a new folder where needed.

        Rows after step `done` are removed, earlier ones stay.
        """
        run_dir = Path(run_dir)
        run_dir.mkdir(parents=True, exist_ok=True)
        _drop_rows(run_dir / FILE, done)
        self._file = (run_dir / FILE).open("a", encoding="utf-8")
        self._loggers = loggers

    def write(self, row: Mapping[str, Any]) -> None:
        """Append `row`, which has a `step`, as one line."""
        self._file.write(json.dumps(dict(row), default=float) + "\n")
        # A reader of the file, and whoever continues a killed run, finds every finished step.
        self._file.flush()
        numbers = _numbers(row)
        for logger in self._loggers:
            logger.write(int(row["step"]), numbers)

    def close(self) -> None:
        """Close the file and the loggers."""
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
    """All rows in order, without a torn last line. A run without metrics gives an empty list."""
    path = Path(run_dir) / FILE
    if not path.exists():
        return []
    # What follows the last line end is a line that a killed process did not finish.
    lines = path.read_bytes().split(b"\n")[:-1]
    return [json.loads(line) for line in lines if line.strip()]


def _drop_rows(path: Path, done: int) -> None:
    """Keep only whole rows of steps up to `done`: the steps after it are done again."""
    if path.exists():
        lines = [line for line in path.read_bytes().split(b"\n")[:-1] if line.strip()]
        kept = [line for line in lines if json.loads(line)["step"] <= done]
        write_bytes(path, b"".join(line + b"\n" for line in kept))


def _numbers(row: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of a row, those of nested mappings under `outer/inner`, without the step."""
    numbers: dict[str, float] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            numbers |= _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float, np.number)) and name != "step":
            numbers[prefix + name] = float(value)
    return numbers
