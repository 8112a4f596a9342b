"""From records to what is shown: each variant at each budget, over its seeds."""

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from megatron_trace.compare.curves import Curve, mean_curve, reached_at, success_curves
from megatron_trace.compare.measures import measures, relative_measures
from megatron_trace.compare.record import Record
from megatron_trace.compare.statistics import Interval, Paired, interval, paired

RANKED_BY = ("success", "still/gradient_snr_per_1000_rollouts")
"""The first of these measures that a variant has decides where it stands among the others."""


@dataclass
class VariantSummary:
    """A variant at a budget, over its seeds.

    Attributes:
        name: of the variant, with the budget where there are several.
        records: by seed.
        values: measure -> the seeds' values, in the order of the seeds.
        intervals: of the same.
        success_test: comparison of success with the baseline at the same budget; None for the
            baseline itself.
        reached: number of seeds that came to the baseline's final success within the baseline's
            rollouts.
        reach_of_means: share of the baseline's rollouts after which the mean curve came to the
            baseline's mean final success, over the seeds that both have; NaN where it never did.
    """

    name: str
    variant: str
    budget: int
    records: dict[int, Record]
    values: dict[str, list[float]] = field(default_factory=dict)
    intervals: dict[str, Interval] = field(default_factory=dict)
    success_test: Paired | None = None
    reached: int = 0
    reach_of_means: float = math.nan


def summarise(records: Sequence[Record], baseline: str) -> list[VariantSummary]:
    """A summary for each variant and budget: by budget, the baseline first, the others by their
    success.
    """
    groups: dict[tuple[int, str], dict[int, Record]] = defaultdict(dict)
    for record in sorted(records, key=lambda record: record.seed):
        groups[record.budget, record.variant][record.seed] = record
    budgets = {budget for budget, _ in groups}
    summaries = []
    for (budget, variant), found in groups.items():
        summary = VariantSummary(
            name=variant if len(budgets) == 1 else f"{variant}, {budget}",
            variant=variant,
            budget=budget,
            records=found,
        )
        # Only within a budget: steps of another size are another experiment.
        others = groups.get((budget, baseline), {})
        _measure(summary, others)
        _compare_mean_curves(summary, others)
        if variant != baseline:
            summary.success_test = _success_test(found, others)
        summaries.append(summary)
    return sorted(summaries, key=lambda one: (one.budget, one.variant != baseline, -_rank(one)))


def trained(summaries: Sequence[VariantSummary]) -> bool:
    """Whether any record is of training: with a budget in tokens, simulated ones only measure the
    start policy.
    """
    records = [record for summary in summaries for record in summary.records.values()]
    return any(record.steps.get("rollouts") for record in records)


def pick(records: Mapping[int, Record], seeds: Collection[int]) -> dict[int, Record]:
    """The records of these seeds."""
    return {seed: record for seed, record in records.items() if seed in seeds}


def _measure(summary: VariantSummary, baseline: Mapping[int, Record]) -> None:
    """Fill in the seeds' values and their intervals."""
    rows: list[dict[str, float]] = []
    for seed, record in summary.records.items():
        row = measures(record)
        if seed in baseline:
            row |= relative_measures(record, baseline[seed])
        rows.append(row)
    for row in rows:
        if "reach" not in row:
            continue
        # A seed that never reached the mark has NaN, one that did after the baseline's end more
        # than 1. Both count as the whole cost: leaving them out would make a variant look the
        # better the more of its seeds fail.
        summary.reached += row["reach"] <= 1.0
        row["reach"] = min(row["reach"], 1.0) if math.isfinite(row["reach"]) else 1.0
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row.get(name, math.nan) for row in rows]
        summary.values[name] = values
        summary.intervals[name] = interval(values)


def _compare_mean_curves(summary: VariantSummary, baseline: Mapping[int, Record]) -> None:
    # Only seeds that both have: otherwise a baseline with luckier seeds would set a mark that is
    # too high.
    shared = summary.records.keys() & baseline.keys()
    own = _mean_success(summary.records, shared)
    other = _mean_success(baseline, shared)
    if own.y and len(other.y) > 1:
        reached = reached_at(own.x, own.y, mark=other.y[-1])
        summary.reach_of_means = reached / other.x[-1]


def _mean_success(records: Mapping[int, Record], seeds: Collection[int]) -> Curve:
    return mean_curve(success_curves(pick(records, seeds), "rollouts"))


def _success_test(records: Mapping[int, Record], baseline: Mapping[int, Record]) -> Paired | None:
    """The paired tests of success; None where no shared seed of the variant was evaluated."""
    shared = [seed for seed in records if seed in baseline]
    own = [_success(records[seed]) for seed in shared]
    other = [_success(baseline[seed]) for seed in shared]
    if all(math.isnan(value) for value in own):
        return None
    return paired(own, other)


def _success(record: Record) -> float:
    return measures(record).get("success", math.nan)


def _rank(summary: VariantSummary) -> float:
    for name in RANKED_BY:
        if name in summary.intervals and math.isfinite(summary.intervals[name].mean):
            return summary.intervals[name].mean
    return 0.0
