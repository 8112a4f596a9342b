"""The record of a finished trial: one small JSON file, from which table and page can be made at any
time.
"""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from megatron_trace.config import SettingError
from megatron_trace.files.atomic import write_text

FORMAT = 1
DIGITS = 5

Columns = dict[str, list[float | None]]
"""Name -> values, all of the same length; None where a row has none."""


@dataclass
class Record:
    """What is kept of a trial.

    Attributes:
        kind: `real`, or `simulated`.
        variant, budget, seed: which trial it is.
        settings: of the run, by dotted name, where they differ from the defaults; exactly as they
            are.
        steps: of a real run, a value for each step: `rollouts`, `tokens` and `seconds` of that
            step, and metrics.
        evaluations: of a real run, a value for each evaluation: `rollouts` and `tokens` sampled
            before it, `success` and its `error`, and the success on each held-out set.
        numbers: of a simulated trial, what was measured.
        versions, host: what it was made with and on.
    """

    kind: str
    variant: str
    budget: int
    seed: int
    settings: dict[str, Any] = field(default_factory=dict)
    steps: Columns = field(default_factory=dict)
    evaluations: Columns = field(default_factory=dict)
    numbers: dict[str, float | None] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    host: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of the trial."""
        return f"{self.variant}-b{self.budget}-s{self.seed}"


def write_record(folder: Path, record: Record) -> Path:
    """Write `<folder>/<name>.json`, a line for each list; it appears only when it is whole."""
    # Settings are not rounded: they are compared with those of later runs.
    content = {"format": FORMAT} | _rounded(asdict(record)) | {"settings": record.settings}
    return write_text(folder / f"{record.name}.json", _text(content) + "\n")


def read_record(path: Path) -> Record:
    """Read a file of `write_record`.

    Raises:
        SettingError: it is none.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.pop("format") != FORMAT:
            raise ValueError("another format")
        return Record(**data)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise SettingError("--results", str(path), f"is no result of this tool ({error})") from None


def read_records(folder: Path) -> list[Record]:
    """All records of a folder, by variant, budget and seed.

    Raises:
        SettingError: a file is none, or real and simulated ones lie together.
    """
    records = [read_record(path) for path in sorted(folder.glob("*.json"))]
    if len({record.kind for record in records}) > 1:
        raise SettingError(
            "--results", str(folder), "holds real and simulated results; keep them apart"
        )
    return sorted(records, key=lambda one: (one.variant, one.budget, one.seed))


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    if isinstance(value, float):
        # JSON has neither NaN nor infinity.
        if not math.isfinite(value):
            return None
        return (
            int(value) if value.is_integer() and abs(value) < 1e15 else float(f"{value:.{DIGITS}g}")
        )
    return value


def _text(value: Any, indent: str = "") -> str:
    # json's own indentation would give each number of a list a line, some thousands in a record.
    if not isinstance(value, dict) or not value:
        return json.dumps(value, ensure_ascii=False)
    inner = indent + " "
    lines = [
        f"{inner}{json.dumps(name, ensure_ascii=False)}: {_text(one, inner)}"
        for name, one in value.items()
    ]
    return "{\n" + ",\n".join(lines) + "\n" + indent + "}"
