"""`History`: what a run wrote, as series over steps."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from megatron_trace.models.folders import hf_assets_dir
from megatron_trace.report.metrics import CALIBRATION_BINS, Bin
from megatron_trace.report.metrics_file import Row, read_metrics
from megatron_trace.report.words import seconds_text

WINDOW = 5
"""Steps whose mean is called the first and the last of a run."""


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
        """Steps and values of `key`; steps without it are left out, or take `default` where one is
        given.
        """
        steps, values = [], []
        for row in self.rows:
            value = row.get(key, default)
            if isinstance(value, (int, float)):
                steps.append(row["step"])
                values.append(float(value))
        return steps, values

    def total(self, key: str) -> float:
        """Sum of `key` over all steps and evaluations; what is not finite does not count."""
        total = 0.0
        for row in self.rows + self.evaluations:
            value = float(row.get(key) or 0.0)
            if math.isfinite(value):
                total += value
        return total

    def ends(self, key: str) -> tuple[float, float] | None:
        """Means of `key` over the first and the last `WINDOW` steps; None without any.

        A run of fewer than two windows has its first and its second half instead.
        """
        _, values = self.series(key)
        if not values:
            return None
        # The two windows must not overlap: the change between them would be too small.
        window = max(min(WINDOW, len(values) // 2), 1)
        first, last = values[:window], values[-window:]
        return sum(first) / window, sum(last) / window

    def evaluation_steps(self) -> list[int]:
        """Steps that were evaluated."""
        return [row["step"] for row in self.evaluations]

    def evaluation_sets(self) -> list[str]:
        """Names of the held-out sets, the mean left out."""
        # A dict rather than a set: it keeps the order in which the names appear.
        names: dict[str, None] = {}
        for row in self.evaluations:
            names |= dict.fromkeys(row["evaluation"])
        return [name for name in names if name != "mean"]

    def evaluation(self, name: str) -> list[float]:
        """Success on a held-out set, or their `mean`, at each evaluated step; NaN where it is
        missing.
        """
        return [_score(row["evaluation"], name) for row in self.evaluations]

    def evaluation_errors(self) -> list[float]:
        """Standard errors of the mean; empty where a row lacks its own."""
        errors = []
        for row in self.evaluations:
            error = row.get("evaluation_standard_error")
            # A row has one number, or one for each set and their mean.
            if isinstance(error, Mapping):
                error = error.get("mean")
            if error is None:
                return []
            errors.append(float(error))
        return errors

    def phases(self) -> list[str]:
        """Names of the timed phases, in the order in which they first appear."""
        names: dict[str, None] = {}
        for row in self.rows + self.evaluations:
            names |= dict.fromkeys(key for key in row if key.startswith("time/"))
        return [name.removeprefix("time/") for name in names if self.total(name) > 0]

    def duration(self) -> str:
        """Time of all phases together, in words."""
        return seconds_text(sum(self.total(f"time/{name}") for name in self.phases()))

    def calibration(self, rows: Sequence[Row]) -> list[Bin]:
        """The bins of `metrics.calibration_bins` of some step rows, merged."""
        groups: list[list[Bin]] = [[] for _ in range(CALIBRATION_BINS)]
        for row in rows:
            for prediction, success, count in row.get("calibration") or []:
                # A prediction of exactly 1 belongs to the last bin.
                place = min(int(prediction * CALIBRATION_BINS), CALIBRATION_BINS - 1)
                groups[place].append((prediction, success, int(count)))
        return [_merged(group) for group in groups if group]

    def events(self) -> list[tuple[int, str]]:
        """(step, text) of all that was noted during the run."""
        found = []
        for row in self.rows:
            found += [(row["step"], str(text)) for text in row.get("events") or []]
        return found

    def description(self) -> list[str]:
        """Strategy, environment and model, where the configuration tells."""
        paths = ("allocation.strategy", "environment.name", "model.path")
        found = [OmegaConf.select(OmegaConf.create(self.config), path) for path in paths]
        return [str(value) for value in found if value]

    @property
    def merges(self) -> bool:
        """Whether the run took equal histories for one, in its allocation or in its advantages."""
        config = OmegaConf.create(self.config)
        paths = ("allocation.merge", "learning.advantage.merge")
        return any(OmegaConf.select(config, path) for path in paths)

    def progress(self) -> str:
        """How many steps were done, and of how many."""
        done = len(self.rows)
        planned = (self.config.get("run") or {}).get("steps")
        return f"{done} of {planned} steps" if planned else f"{done} steps"


def read_history(run_dir: Path | str) -> History:
    """Read `metrics.jsonl` and `config.yaml` of a run; either may be missing."""
    run_dir = Path(run_dir)
    path = run_dir / "config.yaml"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    config: Any = OmegaConf.to_container(OmegaConf.create(text)) if text.strip() else {}
    # The folder's name rather than "." where the run is the working directory.
    name = (config.get("run") or {}).get("name") or run_dir.resolve().name
    history = History(str(name), config=config, config_text=text)
    for row in read_metrics(run_dir):
        (history.evaluations if "evaluation" in row else history.rows).append(row)
    return history


def decoder(run_dir: Path | str, tokenizer: str | None = None) -> Callable[[list[int]], str]:
    """`decode` of the tokenizer in HF folder `tokenizer`, by default of the run's start policy.

    Raises:
        ValueError: neither is known.
    """
    # transformers takes seconds to import, and few callers of this module need it.
    from transformers import AutoTokenizer

    path = tokenizer or (read_history(run_dir).config.get("model") or {}).get("path")
    if not path:
        raise ValueError(f"{run_dir}/config.yaml names no model; name a tokenizer")
    return AutoTokenizer.from_pretrained(hf_assets_dir(Path(path))).decode


def _score(scores: Mapping[str, float], name: str) -> float:
    if name == "mean" and "mean" not in scores:
        return sum(scores.values()) / len(scores) if scores else math.nan
    return float(scores.get(name, math.nan))


def _merged(bins: Sequence[Bin]) -> Bin:
    """One bin of several: means weighted by the numbers of anchors."""
    count = sum(number for *_, number in bins)
    weight = count or 1
    prediction = sum(mean * number for mean, _, number in bins) / weight
    success = sum(mean * number for _, mean, number in bins) / weight
    return prediction, success, count
