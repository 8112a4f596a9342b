"""The charts of a comparison."""

from collections.abc import Sequence
from dataclasses import replace

from megatron_trace.compare.summary import (
    Line,
    Measure,
    mean_curve,
    pick,
    step_curves,
    success_curves,
)
from megatron_trace.compare.words import bounds, written
from megatron_trace.report import charts
from megatron_trace.report.axes import BOTTOM, LEFT, TOP, Frame, heading, ticks
from megatron_trace.report.charts import Series
from megatron_trace.report.svg import document, escape, label, text_width

COLORS = ("blue", "orange", "teal", "violet", "rose", "good", "bad", "ink")
MANY = 4
"""From more lines on, a chart of all of them has no bands."""
ROW = 26.0
WINDOW = 5
SMALL = (369.0, 240.0)


def colors(lines: Sequence[Line], baseline: str) -> dict[str, str]:
    """A CSS colour for each line: grey for the baseline, blue for trace, then one by one, and paler the second time."""
    names = [line.name for line in lines if line.variant != baseline]
    names.sort(key=lambda name: (not name.startswith("trace"), name))
    found = {line.name: "var(--bare)" for line in lines if line.variant == baseline}
    for n, name in enumerate(names):
        color = f"var(--{COLORS[n % len(COLORS)]})"
        found[name] = color if n < len(COLORS) else f"color-mix(in srgb, {color} 55%, var(--faint))"
    return found


def success_chart(lines: Sequence[Line], palette: dict[str, str], x: str, x_name: str) -> str:
    """Success over what was sampled, a mean curve for each line."""
    series = [_series(line, palette, x) for line in lines]
    if len(series) > MANY:
        series = [Series(one.name, one.x, one.y, one.color) for one in series]
    return charts.line_chart(f"Success over {x_name}", series, percent=True, x_name=x_name)


def ratio_chart(lines: Sequence[Line], palette: dict[str, str]) -> str:
    """Effective ratio over steps, the mean over seeds smoothed."""
    series = []
    for line in lines:
        x, y, _ = mean_curve(step_curves(line.records, "effective_ratio"))
        series.append(Series(line.name, x, y, palette[line.name], window=WINDOW))
    title = "Effective ratio: tasks with a success and a failure"
    return charts.line_chart(title, series, percent=True)


def against_baseline(lines: Sequence[Line], palette: dict[str, str], baseline: str) -> list[str]:
    """A small chart for each line with its band, the baseline of the same budget and seeds beside it."""
    drawn = []
    for line in lines:
        others = [one for one in lines if one.variant == baseline and one.budget == line.budget]
        if line.variant != baseline and others:
            beside = replace(
                others[0], records=pick(others[0].records, line.records) or others[0].records
            )
            series = [_series(one, palette, "rollouts") for one in (beside, line)]
            width, height = SMALL
            drawn.append(
                charts.line_chart(
                    line.name, series, percent=True, x_name="rollouts", width=width, height=height
                )
            )
    return drawn


def interval_chart(lines: Sequence[Line], palette: dict[str, str], measure: Measure) -> str:
    """A row for each line: every seed a pale dot, the mean a full one, its interval a bar. Empty without values."""
    rows = [
        line
        for line in lines
        if measure.key in line.intervals and line.intervals[measure.key].count
    ]
    if not rows:
        return ""
    values = [value for line in rows for value in line.values[measure.key] if value == value]
    ends = [
        end
        for line in rows
        for end in (line.intervals[measure.key].low, line.intervals[measure.key].high)
    ]
    marks = ticks(
        min(values + [e for e in ends if e == e]), max(values + [e for e in ends if e == e]), 5
    )
    names = max(text_width(line.name, 12) for line in rows)
    width, height = charts.WIDTH, TOP + ROW * len(rows) + BOTTOM
    shift = max(names + 30 - LEFT, 0.0)
    frame = Frame(marks[0], marks[-1], 0.0, 1.0, width - shift, height, 18)
    parts = [heading(measure.title[0].upper() + measure.title[1:])]
    decimals = 1 if marks[1] - marks[0] < 0.01 else 0
    for mark in marks:
        x = frame.px(mark) + shift
        parts.append(f'<path class="grid" d="M{x:.1f} {TOP - 8:.1f}V{height - BOTTOM:.1f}"/>')
        text = f"{mark:.3g}" if measure.kind not in ("share", "percent") else f"{mark:.{decimals}%}"
        parts.append(label(x, height - 14, text, 11, 'class="soft" text-anchor="middle"'))
    for n, line in enumerate(rows):
        parts.append(_row(line, measure, frame, shift, TOP + ROW * (n + 0.5), palette[line.name]))
    style = ".mt .grid{stroke:var(--faint);stroke-width:1}"
    return document("".join(parts), width, height, measure.title, style)


def _row(line: Line, measure: Measure, frame: Frame, shift: float, y: float, color: str) -> str:
    one = line.intervals[measure.key]
    tip = f"{line.name}: {written(one.mean, measure.kind)} {bounds(one, measure.kind)}"
    parts = [label(18, y + 4, line.name, 12, f'style="fill:{color}" font-weight="600"')]
    if one.low == one.low:
        low, high = frame.px(one.low) + shift, frame.px(one.high) + shift
        parts.append(
            f'<path d="M{low:.1f} {y:.1f}H{high:.1f}" stroke="{color}" stroke-width="6" stroke-opacity=".3" '
            'stroke-linecap="round"/>'
        )
    for value in line.values[measure.key]:
        if value == value:
            x = frame.px(value) + shift
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.2" fill="{color}" fill-opacity=".45"/>'
            )
    x = frame.px(one.mean) + shift
    parts.append(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{color}"><title>{escape(tip)}</title></circle>'
    )
    return "".join(parts)


def _series(line: Line, palette: dict[str, str], x: str) -> Series:
    xs, success, errors = mean_curve(success_curves(line.records, x))
    return Series(line.name, xs, success, palette[line.name], error=errors)
