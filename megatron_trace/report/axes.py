"""What all charts share: the frame, its axes, the heading and the legend."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from megatron_trace.report.svg import (
    BOLD,
    SOFT,
    SOFT_END,
    SOFT_MIDDLE,
    document,
    label,
    moved,
    path,
    rect,
)
from megatron_trace.report.text_fitting import text_width

WIDTH, HEIGHT = 560.0, 300.0
"""Size of a chart in pixels, unless another is asked for."""

LEFT, RIGHT, TOP, BOTTOM = 56.0, 18.0, 58.0, 34.0
"""Room around the plot for the axes and the heading."""

CHART_GAP = 16.0
"""Distance of two charts in one picture."""

EDGE = 18.0
"""Distance of heading and legend from the left edge."""

MOST_DIGITS = 6
"""Digits more than usual that a label of an axis may have."""

_STYLE = """
.mt .grid{stroke:var(--faint);stroke-width:1}.mt .line{fill:none;stroke-width:2.25;stroke-linejoin:round}
.mt .dash{stroke-dasharray:5 4;stroke-width:1.75}.mt .band{fill-opacity:.14}
"""


@dataclass
class Frame:
    """From data to pixels: ranges of x and y, the chart's size, and the room beside the plot."""

    # Charts with names at the left or right of the plot take more room there; above and below all
    # are alike.
    x_low: float
    x_high: float
    y_low: float
    y_high: float
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = RIGHT

    @property
    def plot_right(self) -> float:
        """Right end of the plot in pixels."""
        return self.width - self.right

    @property
    def plot_bottom(self) -> float:
        """Lower end of the plot in pixels."""
        return self.height - BOTTOM

    def x_pixel(self, x: float) -> float:
        """Horizontal place of `x`."""
        # A run of one step has a range of length 0.
        share = (x - self.x_low) / ((self.x_high - self.x_low) or 1.0)
        return self.left + share * (self.plot_right - self.left)

    def y_pixel(self, y: float) -> float:
        """Vertical place of `y`."""
        share = (y - self.y_low) / ((self.y_high - self.y_low) or 1.0)
        return self.plot_bottom - share * (self.plot_bottom - TOP)

    def pixels(self, x: Sequence[float], y: Sequence[float]) -> list[tuple[float, float]]:
        """Places of points."""
        return [(self.x_pixel(a), self.y_pixel(b)) for a, b in zip(x, y, strict=True)]


def chart(title: str, parts: Sequence[str], frame: Frame) -> str:
    """A chart as an SVG: its heading and its parts."""
    body = heading(title) + "".join(parts)
    return document(body, frame.width, frame.height, title, _STYLE)


def side_by_side(charts: Sequence[str], label: str, height: float = HEIGHT) -> str:
    """Charts of the usual width in a row, as one SVG; `label` is read by screen readers."""
    distance = WIDTH + CHART_GAP
    body = [moved(drawing, number * distance, 0) for number, drawing in enumerate(charts)]
    return document("".join(body), len(charts) * distance - CHART_GAP, height, label)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers that cover [low, high]."""
    if not high > low:
        high = low + (abs(low) or 1.0)
    step = _round_step((high - low) / max(count - 1, 1))
    # 0.3 / 0.1 is a little less than 3: without the margin an axis from 0.3 would begin at 0.2.
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    digits = 2 - math.floor(math.log10(step))
    return [round(n * step, digits) for n in range(first, last + 1)]


def _round_step(least: float) -> float:
    """The smallest round number that is at least `least`."""
    base = 10.0 ** math.floor(math.log10(least))
    # Below 0.1 a step of 2.5 would need a digit more in every label than 2 and 5 do.
    factors = (1, 2, 2.5, 5, 10) if base >= 0.1 else (1, 2, 5, 10)
    return next(factor * base for factor in factors if factor * base >= least * 0.999)


def smallest_gap(x: Sequence[float]) -> float:
    """Smallest distance between neighbours of a sorted sequence; 1 for fewer than two."""
    return min((b - a for a, b in pairwise(x)), default=1.0) or 1.0


def heading(title: str, x: float = EDGE, y: float = 28, size: float = 14) -> str:
    """A title with its baseline at (x, y)."""
    return label(x, y, title, size, BOLD)


def legend(names: Sequence[tuple[str, str]], x: float = EDGE, y: float = 37) -> str:
    """What the colours mean: (name, CSS colour) in a row, with its upper left corner at (x, y)."""
    parts = []
    for name, color in names:
        parts.append(rect(x, y, 10, 10, f'rx="3" fill="{color}"'))
        parts.append(label(x + 15, y + 9, name, 11, SOFT))
        x += 15 + text_width(name, 11) + 14
    return "".join(parts)


def y_axis(frame: Frame, values: Sequence[float], percent: bool) -> str:
    """Grid lines with their values; `percent` prints shares."""
    parts = []
    for value, text in zip(values, _tick_texts(values, percent), strict=True):
        y = frame.y_pixel(value)
        parts.append(path(f"M{frame.left:.1f} {y:.1f}H{frame.plot_right:.1f}", 'class="grid"'))
        parts.append(label(frame.left - 8, y + 4, text, 11, SOFT_END))
    return "".join(parts)


def x_axis(frame: Frame, name: str = "step") -> str:
    """Whole numbers below the plot, of steps or of what `name` says."""
    # A short run has ticks at half steps, which do not exist.
    marks = []
    for x in ticks(frame.x_low, frame.x_high, 6):
        if frame.x_low <= x <= frame.x_high and x == int(x):
            marks.append((x, _tick_text(x)))
    numbers = x_labels(frame, marks)
    if name == "step":
        return numbers + label(14, frame.height - 14, name, 11, SOFT)
    return numbers + x_name(frame, name)


def x_labels(frame: Frame, marks: Sequence[tuple[float, str]]) -> str:
    """Texts below the plot; `marks` are (x, text)."""
    y = frame.height - 14
    return "".join(label(frame.x_pixel(x), y, text, 11, SOFT_MIDDLE) for x, text in marks)


def x_grid(frame: Frame, values: Sequence[float]) -> str:
    """Vertical grid lines."""
    parts = []
    for value in values:
        x = frame.x_pixel(value)
        parts.append(path(f"M{x:.1f} {TOP - 8:.1f}V{frame.plot_bottom:.1f}", 'class="grid"'))
    return "".join(parts)


def x_name(frame: Frame, name: str) -> str:
    """What x is, at the right end just above the axis."""
    return label(frame.plot_right, frame.plot_bottom - 8, f"{name} →", 11, SOFT_END)


def _tick_texts(values: Sequence[float], percent: bool) -> list[str]:
    """Texts of an axis, with the fewest digits that tell its values apart."""
    for digits in range(MOST_DIGITS):
        texts = []
        for value in values:
            texts.append(f"{value:.{digits}%}" if percent else _tick_text(value, 4 + digits))
        if len(set(texts)) == len(texts):
            break
    return texts


def _tick_text(value: float, digits: int = 4) -> str:
    return f"{value / 1000:g}k" if abs(value) >= 10_000 else f"{value:.{digits}g}"
