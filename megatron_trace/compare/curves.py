"""Curves of one seed and of several: success over what was sampled, metrics over steps."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from megatron_trace.compare.record import Record


@dataclass
class Curve:
    """Points; a mean over several seeds has standard errors of y."""

    x: list[float]
    y: list[float]
    error: list[float] = field(default_factory=list)


def success_curves(records: Mapping[int, Record], x: str) -> list[Curve]:
    """Success over `x` (rollouts or tokens) of every seed that was evaluated."""
    tables = [record.evaluations for record in records.values()]
    return [
        Curve(floats(table[x]), floats(table["success"]))
        for table in tables
        if table.get("success")
    ]


def step_curves(records: Mapping[int, Record], metric: str) -> list[Curve]:
    """A step metric over steps, of every seed that has it."""
    curves = []
    for record in records.values():
        y = floats(record.steps.get(metric) or [])
        if y:
            curves.append(Curve([float(step) for step in range(1, len(y) + 1)], y))
    return curves


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """Mean x, mean y and standard error of y over seeds, at each point that all have; no error for
    one seed.
    """
    mean = Curve([], [])
    # A seed that is still running has fewer evaluations. A mean over other seeds than before would
    # jump there.
    for n in range(min((len(curve.y) for curve in curves), default=0)):
        column = [curve.y[n] for curve in curves]
        mean.x.append(mean_of([curve.x[n] for curve in curves]))
        mean.y.append(mean_of(column))
        if len(curves) > 1:
            mean.error.append(standard_error(column))
    return mean


def mean_height(curve: Curve) -> float:
    """Mean height of the broken line through the points; NaN for fewer than two points."""
    x, y = curve.x, curve.y
    if len(y) < 2 or x[-1] <= x[0]:
        return math.nan
    area = 0.0
    for n in range(1, len(y)):
        width = x[n] - x[n - 1]
        area += width * (y[n] + y[n - 1]) / 2
    return area / (x[-1] - x[0])


def reached_at(x: Sequence[float], y: Sequence[float], mark: float) -> float:
    """Where the broken line through (x, y) first reaches `mark`; NaN where it never does."""
    if not y:
        return math.nan
    if y[0] >= mark:
        return float(x[0])
    for n in range(1, len(y)):
        # The point before lies below the mark, so the two differ and the division is safe.
        if y[n] >= mark:
            rise = y[n] - y[n - 1]
            share = (mark - y[n - 1]) / rise
            return float(x[n - 1] + share * (x[n] - x[n - 1]))
    return math.nan


def floats(values: Sequence[float | None]) -> list[float]:
    """None as NaN."""
    return [math.nan if value is None else float(value) for value in values]


def mean_of(values: Sequence[float]) -> float:
    """Mean of the values that are finite; NaN without any."""
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


def standard_error(values: Sequence[float]) -> float:
    """Standard error of the mean of at least two values."""
    mean = mean_of(values)
    squares = sum((value - mean) ** 2 for value in values)
    return math.sqrt(squares / (len(values) - 1) / len(values))
