"""`History`: a run's rows as series over steps."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from megatron_trace.models.folders import hf_assets_dir
from megatron_trace.report.metrics import CALIBRATION_BINS, Row, read_metrics
from megatron_trace.report.words import seconds_text

Bin = tuple[float, float, int]


@dataclass
class History:
    """What a run wrote so far.

    Attributes:
        name: name of the run.
        rows: step rows, in order.
        evaluations: evaluation rows, in order.
        config: its configuration as plain data; empty where there is none.
        config_text: the same as YAML.
    """

    name: str
    rows: list[Row] = field(default_factory=list)
    evaluations: list[Row] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    config_text: str = ""

    def steps(self) -> list[int]:
        """Steps that have a row."""
        return [row["step"] for row in self.rows]

    def series(self, key: str, default: float | None = None) -> tuple[list[int], list[float]]:
        """Steps and values of `key`; steps without it are left out, or take `default` where one is given."""
        points = [(row["step"], row.get(key, default)) for row in self.rows]
        kept = [(step, float(value)) for step, value in points if isinstance(value, (int, float))]
        return [step for step, _ in kept], [value for _, value in kept]

    def total(self, key: str) -> float:
        """Sum of `key` over all steps and evaluations."""
        values = [float(row.get(key) or 0.0) for row in self.rows + self.evaluations]
        return sum(value for value in values if math.isfinite(value))

    def ends(self, key: str, window: int) -> tuple[float, float] | None:
        """Means of `key` over the first and the last `window` steps, fewer in a short run; None without any."""
        values = self.series(key)[1]
        window = max(min(window, len(values) // 2), 1)
        first, last = values[:window], values[-window:]
        return (sum(first) / len(first), sum(last) / len(last)) if values else None

    def evaluation_steps(self) -> list[int]:
        """Steps that were evaluated."""
        return [row["step"] for row in self.evaluations]

    def evaluation_sets(self) -> list[str]:
        """Names of the held-out sets, the mean left out."""
        names = {name: None for row in self.evaluations for name in row["evaluation"]}
        return [name for name in names if name != "mean"]

    def evaluation(self, name: str) -> list[float]:
        """Success on a held-out set, or their `mean`, at each evaluated step; NaN where it is missing."""
        return [_score(row["evaluation"], name) for row in self.evaluations]

    def evaluation_errors(self) -> list[float]:
        """Standard errors of the mean; empty where they were not all written."""
        errors = [row.get("evaluation_standard_error") for row in self.evaluations]
        values = [error.get("mean") if isinstance(error, Mapping) else error for error in errors]
        return [float(value) for value in values if value is not None] if None not in values else []

    def phases(self) -> list[str]:
        """Names of the timed phases, in the order they first appear."""
        rows = self.rows + self.evaluations
        names = {key: None for row in rows for key in row if key.startswith("time/")}
        return [name.removeprefix("time/") for name in names if self.total(name) > 0]

    def duration(self) -> str:
        """Time of all phases together, in words."""
        return seconds_text(sum(self.total(f"time/{name}") for name in self.phases()))

    def calibration(self, *, first: int = 0, last: int = 0) -> list[Bin]:
        """The bins of `metrics.calibration_bins` of the first or the last steps, merged."""
        rows = self.rows[:first] if first else self.rows[-last:]
        groups: list[list[Bin]] = [[] for _ in range(CALIBRATION_BINS)]
        for row in rows:
            for p, s, count in row.get("calibration") or []:
                groups[min(int(p * CALIBRATION_BINS), CALIBRATION_BINS - 1)].append(
                    (p, s, int(count))
                )
        return [_merged(group) for group in groups if group]

    def events(self) -> list[tuple[int, str]]:
        """(step, text) of all that was noted during the run."""
        return [(row["step"], str(text)) for row in self.rows for text in row.get("events") or []]

    def description(self) -> list[str]:
        """Strategy, environment and model, where the configuration tells."""
        paths = ("allocation.strategy", "environment.name", "model.path")
        found = [OmegaConf.select(OmegaConf.create(self.config), path) for path in paths]
        return [str(value) for value in found if value]

    def progress(self) -> str:
        """How many steps were done, and of how many."""
        planned, done = (self.config.get("run") or {}).get("steps"), len(self.rows)
        return f"{done} of {planned} steps" if planned else f"{done} steps"


def read_history(run_dir: Path | str) -> History:
    """Read `metrics.jsonl` and `config.yaml` of a run; either may be missing."""
    run_dir = Path(run_dir)
    rows, path = read_metrics(run_dir), run_dir / "config.yaml"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    config: Any = OmegaConf.to_container(OmegaConf.create(text)) if text.strip() else {}
    return History(
        name=str((config.get("run") or {}).get("name") or run_dir.resolve().name),
        rows=[row for row in rows if "evaluation" not in row],
        evaluations=[row for row in rows if "evaluation" in row],
        config=config,
        config_text=text,
    )


def decoder(run_dir: Path | str, tokenizer: str | None = None) -> Callable[[list[int]], str]:
    """`decode` of the tokenizer in HF folder `tokenizer`, by default of the run's start policy.

    Raises:
        ValueError: neither is known.
    """
    from transformers import AutoTokenizer

    path = tokenizer or (read_history(run_dir).config.get("model") or {}).get("path")
    if not path:
        raise ValueError(f"{run_dir}/config.yaml names no model; name a tokenizer")
    return AutoTokenizer.from_pretrained(hf_assets_dir(Path(path))).decode


def _score(scores: Mapping[str, float], name: str) -> float:
    if name == "mean" and "mean" not in scores:
        return sum(scores.values()) / len(scores) if scores else math.nan
    return float(scores.get(name, math.nan))


def _merged(bins: list[Bin]) -> Bin:
    count = sum(n for *_, n in bins)
    weight = count or 1
    return sum(p * n for p, _, n in bins) / weight, sum(s * n for _, s, n in bins) / weight, count
