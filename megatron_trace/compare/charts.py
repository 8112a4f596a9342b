"""The charts of a comparison."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from megatron_trace.compare.curves import mean_curve, step_curves, success_curves
from megatron_trace.compare.measures import Measure
from megatron_trace.compare.number_text import interval_text, value_text
from megatron_trace.compare.summary import VariantSummary, pick
from megatron_trace.report.interval_chart import IntervalRow, interval_chart
from megatron_trace.report.line_chart import Series, line_chart

COLORS = ("blue", "orange", "teal", "violet", "rose", "good", "bad", "ink")

MOST_BANDS = 4
"""With more curves than this a chart has no bands."""

SMOOTHED_STEPS = 5
SMALL_WIDTH, SMALL_HEIGHT = 369.0, 240.0

Palette = Mapping[str, str]
"""Name of a summary -> CSS colour."""


def palette_of(summaries: Sequence[VariantSummary], baseline: str) -> Palette:
    """Grey for the baseline, blue for trace, then one colour after the other, and paler the second
    time.
    """
    palette = {one.name: "var(--bare)" for one in summaries if one.variant == baseline}
    names = [one.name for one in summaries if one.variant != baseline]
    # By name, not by rank: a variant keeps its colour when new results change who leads.
    names.sort(key=lambda name: (not name.startswith("trace"), name))
    for n, name in enumerate(names):
        color = f"var(--{COLORS[n % len(COLORS)]})"
        if n >= len(COLORS):
            color = f"color-mix(in srgb, {color} 55%, var(--faint))"
        palette[name] = color
    return palette


def success_chart(
    summaries: Sequence[VariantSummary], palette: Palette, x: str, x_name: str
) -> str:
    """Success over what was sampled, a mean curve for each variant."""
    series = [_success_series(summary, palette, x) for summary in summaries]
    if len(series) > MOST_BANDS:
        series = [replace(one, error=()) for one in series]
    return line_chart(f"Success over {x_name}", series, percent=True, x_name=x_name)


def ratio_chart(summaries: Sequence[VariantSummary], palette: Palette) -> str:
    """Effective ratio over steps, the mean over seeds smoothed."""
    series = []
    for one in summaries:
        mean = mean_curve(step_curves(one.records, "effective_ratio"))
        curve = Series(one.name, mean.x, mean.y, palette[one.name], window=SMOOTHED_STEPS)
        series.append(curve)
    title = "Effective ratio: tasks with a success and a failure"
    return line_chart(title, series, percent=True)


def charts_against_baseline(
    summaries: Sequence[VariantSummary], palette: Palette, baseline: str
) -> list[str]:
    """A small chart for each variant with its band, the baseline of the same budget and seeds
    beside it.
    """
    baselines = {one.budget: one for one in summaries if one.variant == baseline}
    charts = []
    for one in summaries:
        if one.variant == baseline or one.budget not in baselines:
            continue
        # A baseline with more seeds would be another mean than the one that the variant is tested
        # against.
        other = baselines[one.budget]
        beside = replace(other, records=pick(other.records, one.records) or other.records)
        series = [_success_series(shown, palette, "rollouts") for shown in (beside, one)]
        chart = line_chart(
            one.name,
            series,
            percent=True,
            x_name="rollouts",
            width=SMALL_WIDTH,
            height=SMALL_HEIGHT,
        )
        charts.append(chart)
    return charts


def measure_chart(summaries: Sequence[VariantSummary], palette: Palette, measure: Measure) -> str:
    """A row for each variant: its seeds, its mean and its interval. Empty text without values."""
    rows = []
    for one in summaries:
        interval = one.intervals.get(measure.key)
        if interval is None or not interval.count:
            continue
        texts = value_text(interval.mean, measure.kind), interval_text(interval, measure.kind)
        row = IntervalRow(
            one.name,
            palette[one.name],
            one.values[measure.key],
            interval.mean,
            interval.low,
            interval.high,
            tooltip=f"{one.name}: {' '.join(texts)}",
        )
        rows.append(row)
    title = measure.title[0].upper() + measure.title[1:]
    return interval_chart(title, rows, percent=measure.kind in ("share", "percent"))


def _success_series(summary: VariantSummary, palette: Palette, x: str) -> Series:
    mean = mean_curve(success_curves(summary.records, x))
    return Series(summary.name, mean.x, mean.y, palette[summary.name], error=mean.error)
