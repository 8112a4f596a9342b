"""Means with their intervals, a row for each."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from megatron_trace.report.axes import (
    BOTTOM,
    LEFT,
    TOP,
    WIDTH,
    Frame,
    chart,
    ticks,
    x_grid,
    x_labels,
)
from megatron_trace.report.svg import circle, label, path
from megatron_trace.report.text_fitting import text_width

ROW_HEIGHT = 26.0


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
    names = max(text_width(row.name, 12) for row in rows)
    left = max(names + 30, LEFT)
    frame = Frame(marks[0], marks[-1], 0.0, 1.0, WIDTH, chart_height(len(rows)), left=left)
    # Where marks are less than 1 % apart, whole percents would repeat.
    decimals = 1 if marks[1] - marks[0] < 0.01 else 0
    texts = [f"{mark:.{decimals}%}" if percent else f"{mark:.3g}" for mark in marks]
    parts = [x_grid(frame, marks), x_labels(frame, list(zip(marks, texts, strict=True)))]
    for n, row in enumerate(rows):
        parts.append(_drawn(row, frame, TOP + ROW_HEIGHT * (n + 0.5)))
    return chart(title, parts, frame)


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
    parts = [label(18, y + 4, row.name, 12, f'style="fill:{row.color}" font-weight="600"')]
    if not math.isnan(row.low):
        low, high = frame.x_pixel(row.low), frame.x_pixel(row.high)
        bar = 'stroke-width="6" stroke-opacity=".3" stroke-linecap="round"'
        parts.append(path(f"M{low:.1f} {y:.1f}H{high:.1f}", f'stroke="{row.color}" {bar}'))
    for value in row.values:
        if not math.isnan(value):
            dot = f'fill="{row.color}" fill-opacity=".45"'
            parts.append(circle(frame.x_pixel(value), y, 2.2, dot))
    parts.append(circle(frame.x_pixel(row.mean), y, 4.5, f'fill="{row.color}"', row.tooltip))
    return "".join(parts)
