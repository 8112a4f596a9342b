"""Means with their intervals, a row for each."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from megatron_trace.report.axes import (
    BOTTOM,
    EDGE,
    LEFT,
    TOP,
    Frame,
    chart,
    ticks,
    x_grid,
    x_labels,
)
from megatron_trace.report.svg import circle, label, name_style, polyline
from megatron_trace.report.text_fitting import text_width

ROW_HEIGHT = 26.0
NAME_SIZE = 12


@dataclass
class IntervalRow:
    """One row.

    Attributes:
        name: printed at its left, in its colour.
        color: a CSS colour.
        values: drawn as pale dots; NaN is left out.
        mean: drawn as a full dot.
        low, high: ends of the interval, drawn as a bar; NaN: there is none.
        tooltip: of the full dot.
    """

    name: str
    color: str
    values: Sequence[float]
    mean: float
    low: float
    high: float
    tooltip: str


def interval_chart(title: str, rows: Sequence[IntervalRow], *, percent: bool) -> str:
    """A row for each mean; `percent` prints shares.

    Returns:
        An SVG; empty text without rows.
    """
    if not rows:
        return ""
    marks = _marks(rows)
    longest_name = max(text_width(row.name, NAME_SIZE) for row in rows)
    frame = Frame(
        x_low=marks[0],
        x_high=marks[-1],
        y_low=0.0,
        y_high=1.0,
        height=chart_height(len(rows)),
        left=max(longest_name + 30, LEFT),
    )
    texts = _mark_texts(marks, percent)
    parts = [x_grid(frame, marks), x_labels(frame, list(zip(marks, texts, strict=True)))]
    for n, row in enumerate(rows):
        y = TOP + ROW_HEIGHT * (n + 0.5)
        parts.append(label(EDGE, y + 4, row.name, NAME_SIZE, name_style(row.color)))
        parts.append(_drawn(row, frame, y))
    return chart(title, parts, frame)


def _mark_texts(marks: Sequence[float], percent: bool) -> list[str]:
    if not percent:
        return [f"{mark:.3g}" for mark in marks]
    # Where marks are less than 1 % apart, whole percents would repeat.
    decimals = 1 if marks[1] - marks[0] < 0.01 else 0
    return [f"{mark:.{decimals}%}" for mark in marks]


def chart_height(rows: int) -> float:
    """Height in pixels of a chart with this number of rows."""
    return TOP + ROW_HEIGHT * rows + BOTTOM


def _marks(rows: Sequence[IntervalRow]) -> list[float]:
    """Round numbers that cover all values and intervals."""
    shown: list[float] = []
    for row in rows:
        shown += [*row.values, row.low, row.high]
    finite = [value for value in shown if not math.isnan(value)]
    return ticks(min(finite), max(finite), 5)


def _drawn(row: IntervalRow, frame: Frame, y: float) -> str:
    """The interval as a bar, each value as a pale dot, the mean as a full one."""
    parts = []
    # One seed has a mean but no interval.
    if not math.isnan(row.low):
        ends = [(frame.x_pixel(row.low), y), (frame.x_pixel(row.high), y)]
        bar = 'stroke-width="6" stroke-opacity=".3" stroke-linecap="round"'
        parts.append(polyline(ends, f'stroke="{row.color}" {bar}'))
    fill = f'fill="{row.color}"'
    for value in row.values:
        if not math.isnan(value):
            parts.append(circle(frame.x_pixel(value), y, 2.2, f'{fill} fill-opacity=".45"'))
    parts.append(circle(frame.x_pixel(row.mean), y, 4.5, fill, row.tooltip))
    return "".join(parts)
