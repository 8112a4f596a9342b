"""The numbers of a record that are shown, and how they are called."""

import math
from dataclasses import dataclass

from megatron_trace.compare.curves import Curve, floats, mean_height, mean_of, reached_at
from megatron_trace.compare.record import Record


@dataclass(frozen=True)
class Measure:
    """A number of a record.

    Attributes:
        key: its name here.
        title: a column's head.
        kind: how it is written; one of those in `number_text.value_text`.
    """

    key: str
    title: str
    kind: str


MEASURES = (
    Measure("success", "success", "share"),
    Measure("on_the_way", "on the way", "share"),
    Measure("effective_ratio", "effective ratio", "share"),
    Measure("ratio_times", "ratio, times baseline", "times"),
    Measure("reach", "rollouts to baseline's end", "percent"),
    Measure("still/gradient_snr_per_1000_rollouts", "gradient SNR per 1,000 rollouts", "number"),
    Measure("tokens", "sampled tokens", "count"),
    Measure("seconds", "time", "seconds"),
)
"""Columns of the table; those that no record has are left out."""

HELD_STILL = (
    Measure("still/expected_ratio", "expected effective ratio", "share"),
    Measure("still/mixed_by_plan", "expected mixed tasks", "number"),
    Measure("still/gradient_snr_per_1000_rollouts", "SNR per 1,000 rollouts", "number"),
    Measure("still/gradient_snr_per_1000_tokens", "SNR per 1,000 tokens", "number"),
    Measure("still/gradient_cosine", "cosine to the true gradient", "number"),
    Measure("still/advantage_bias", "advantage bias", "number"),
    Measure("still/advantage_deviation", "advantage deviation", "number"),
    Measure("still/tokens", "tokens a step", "count"),
)
"""What the simulator measures with the policy held still."""


def measures(record: Record) -> dict[str, float]:
    """The numbers of a record that need no other record."""
    found = {}
    for name, value in record.numbers.items():
        found[f"still/{name}"] = math.nan if value is None else value
    # A measure that is not finite gets no key, and no record with the key no column.
    for name, value in _training_measures(record).items():
        if math.isfinite(value):
            found[name] = value
    return found


def _training_measures(record: Record) -> dict[str, float]:
    """Numbers of the training; NaN for what the record lacks."""
    success = floats(record.evaluations.get("success", []))
    rollouts = floats(record.evaluations.get("rollouts", []))
    found = {
        "success": success[-1] if success else math.nan,
        "on_the_way": mean_height(Curve(rollouts, success)),
        "effective_ratio": mean_of(floats(record.steps.get("effective_ratio", []))),
    }
    for name in ("tokens", "seconds"):
        steps = record.steps.get(name)
        found[name] = sum(floats(steps)) if steps else math.nan
    return found


def relative_measures(record: Record, baseline: Record) -> dict[str, float]:
    """The numbers of a record that need the baseline's record of the same seed."""
    found = {}
    if all(len(one.evaluations.get("success", [])) > 1 for one in (record, baseline)):
        found["reach"] = reach_share(record, baseline)
    own = measures(record).get("effective_ratio", math.nan)
    other = measures(baseline).get("effective_ratio", math.nan)
    # The baseline is 1.00 times itself in every seed: the column would say nothing.
    if record is not baseline and math.isfinite(own) and other > 0:
        found["ratio_times"] = own / other
    return found


def reach_share(record: Record, baseline: Record) -> float:
    """Share of the baseline's rollouts after which `record` came to the baseline's final success;
    NaN if never.

    Between two evaluations success is taken to change linearly.
    """
    mark = floats(baseline.evaluations["success"])[-1]
    cost = floats(baseline.evaluations["rollouts"])[-1]
    rollouts = floats(record.evaluations["rollouts"])
    return reached_at(rollouts, floats(record.evaluations["success"]), mark) / cost
