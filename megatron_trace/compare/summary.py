"""From records to what is shown: one line for each variant and budget, with intervals and tests."""

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from megatron_trace.compare.record import Record
from megatron_trace.compare.statistics import Interval, Paired, interval, paired, reached_at

Curve = tuple[list[float], list[float]]
"""x and y."""


@dataclass(frozen=True)
class Measure:
    """A number of a record.

    Attributes:
        key: its name here.
        title: a column's head.
        kind: how it is written: share, number, count or seconds.
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


@dataclass
class Line:
    """A variant at a budget, over its seeds.

    Attributes:
        name: of the variant, with the budget where there are several.
        records: by seed.
        values: measure -> the seeds' values, in their order.
        intervals: of the same.
        tests: measure -> comparison with the baseline at the same budget; none for the baseline itself.
        reached: seeds that came to the baseline's final success within the baseline's rollouts.
        reach_of_means: share of the baseline's rollouts after which the mean curve came to the baseline's mean final
            success, over the seeds that both have; NaN where it never did.
    """

    name: str
    variant: str
    budget: int
    records: dict[int, Record]
    values: dict[str, list[float]] = field(default_factory=dict)
    intervals: dict[str, Interval] = field(default_factory=dict)
    tests: dict[str, Paired] = field(default_factory=dict)
    reached: int = 0
    reach_of_means: float = math.nan


def summarise(records: Sequence[Record], baseline: str) -> list[Line]:
    """A line for each variant and budget: by budget, the baseline first, the others by their success."""
    groups: dict[tuple[int, str], dict[int, Record]] = defaultdict(dict)
    for record in sorted(records, key=lambda one: one.seed):
        groups[record.budget, record.variant][record.seed] = record
    several = len({budget for budget, _ in groups}) > 1
    lines = []
    for (budget, variant), found in groups.items():
        line = Line(f"{variant}, {budget}" if several else variant, variant, budget, found)
        _fill(line, groups.get((budget, baseline), {}))
        if variant != baseline and (budget, baseline) in groups:
            _test(line, groups[budget, baseline])
        lines.append(line)
    return sorted(lines, key=lambda line: (line.budget, line.variant != baseline, -_rank(line)))


def measures(record: Record) -> dict[str, float]:
    """The numbers of a record that need no other."""
    curve, steps = record.evaluations, record.steps
    success = floats(curve.get("success", []))
    found = {
        "success": success[-1] if success else math.nan,
        "on_the_way": _mean_height(floats(curve.get("rollouts", [])), success),
    }
    found["effective_ratio"] = _mean(floats(steps.get("effective_ratio", [])))
    for name in ("tokens", "seconds"):
        found[name] = sum(floats(steps[name])) if steps.get(name) else math.nan
    still = {
        f"still/{name}": math.nan if value is None else value
        for name, value in record.numbers.items()
    }
    return still | {name: value for name, value in found.items() if math.isfinite(value)}


def trained(lines: Sequence[Line]) -> bool:
    """Whether any record is of training: with a budget in tokens, simulated ones only measure the start policy."""
    return any(record.steps.get("rollouts") for line in lines for record in line.records.values())


def pick(records: Mapping[int, Record], seeds: Collection[int]) -> dict[int, Record]:
    """The records of these seeds."""
    return {seed: record for seed, record in records.items() if seed in seeds}


def success_curves(records: Mapping[int, Record], x: str) -> list[Curve]:
    """Success over `x` (rollouts or tokens) of every seed that was evaluated."""
    tables = [record.evaluations for record in records.values()]
    return [
        (floats(table[x]), floats(table["success"])) for table in tables if table.get("success")
    ]


def step_curves(records: Mapping[int, Record], name: str) -> list[Curve]:
    """A step metric over steps, of every seed that has it."""
    found = [floats(record.steps[name]) for record in records.values() if record.steps.get(name)]
    return [([float(step) for step in range(1, len(y) + 1)], y) for y in found]


def mean_curve(found: Sequence[Curve]) -> tuple[list[float], list[float], list[float]]:
    """Mean x, mean y and standard error of y over seeds, at each point that all have; no error for one seed."""
    points = min((len(y) for _, y in found), default=0)
    columns = [[y[n] for _, y in found] for n in range(points)]
    xs = [_mean([x[n] for x, _ in found]) for n in range(points)]
    errors = [_standard_error(column) for column in columns] if len(found) > 1 else []
    return xs, [_mean(column) for column in columns], errors


def floats(values: Sequence[float | None]) -> list[float]:
    """None as NaN."""
    return [math.nan if value is None else float(value) for value in values]


def _fill(line: Line, baseline: Mapping[int, Record]) -> None:
    rows = {seed: measures(record) for seed, record in line.records.items()}
    for seed in rows.keys() & baseline.keys():
        rows[seed] |= _relative(line.records[seed], baseline[seed])
    line.reached = sum(row.get("reach", math.nan) <= 1.0 for row in rows.values())
    for row in rows.values():
        if "reach" in row:
            row["reach"] = min(row["reach"], 1.0) if math.isfinite(row["reach"]) else 1.0
    names = dict.fromkeys(name for row in rows.values() for name in row)
    line.values = {name: [row.get(name, math.nan) for row in rows.values()] for name in names}
    line.intervals = {name: interval(values) for name, values in line.values.items()}
    both = [pick(one, line.records.keys() & baseline.keys()) for one in (line.records, baseline)]
    own, other = (mean_curve(success_curves(records, "rollouts")) for records in both)
    if own[1] and len(other[1]) > 1:
        line.reach_of_means = reached_at(*own[:2], other[1][-1]) / other[0][-1]


def _relative(record: Record, baseline: Record) -> dict[str, float]:
    """The numbers of a record that take the baseline's of the same seed."""
    found = {}
    if all(len(one.evaluations.get("success", [])) > 1 for one in (record, baseline)):
        found["reach"] = reach_share(record, baseline)
    ratios = [measures(one).get("effective_ratio", math.nan) for one in (record, baseline)]
    if record is not baseline and math.isfinite(sum(ratios)) and ratios[1] > 0:
        found["ratio_times"] = ratios[0] / ratios[1]
    return found


def reach_share(record: Record, baseline: Record) -> float:
    """Share of the baseline's rollouts after which `record` came to the baseline's final success; NaN if never.

    Between two evaluations success is taken to change linearly.
    """
    own, other = record.evaluations, baseline.evaluations
    mark, cost = floats(other["success"])[-1], floats(other["rollouts"])[-1]
    return reached_at(floats(own["rollouts"]), floats(own["success"]), mark) / cost


def _test(line: Line, baseline: Mapping[int, Record]) -> None:
    shared = [seed for seed in line.records if seed in baseline]
    own = [measures(line.records[seed]) for seed in shared]
    other = [measures(baseline[seed]) for seed in shared]
    names = dict.fromkeys(name for row in own for name in row)
    line.tests = {
        name: paired(
            [row.get(name, math.nan) for row in own], [row.get(name, math.nan) for row in other]
        )
        for name in names
    }


def _rank(line: Line) -> float:
    for name in ("success", "still/gradient_snr_per_1000_rollouts"):
        if math.isfinite(mean := line.intervals[name].mean if name in line.intervals else math.nan):
            return mean
    return 0.0


def _mean(values: Sequence[float]) -> float:
    kept = [value for value in values if math.isfinite(value)]
    return sum(kept) / len(kept) if kept else math.nan


def _standard_error(values: Sequence[float]) -> float:
    mean = _mean(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))


def _mean_height(x: Sequence[float], y: Sequence[float]) -> float:
    """Of the broken line through (x, y): its area over its width; NaN for fewer than two points."""
    if len(y) < 2 or x[-1] <= x[0]:
        return math.nan
    area = sum((x[n] - x[n - 1]) * (y[n] + y[n - 1]) / 2 for n in range(1, len(y)))
    return area / (x[-1] - x[0])
