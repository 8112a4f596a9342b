"""What charts have in common: the frame, its axes, the heading and the key."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from megatron_trace.report.svg import label, text_width

LEFT, TOP, BOTTOM = 56.0, 58.0, 34.0
"""Room around the plot for the axes and the heading."""


@dataclass
class Frame:
    """From data to pixels: ranges of x and y, the drawing's size, and room at its right."""

    x0: float
    x1: float
    y0: float
    y1: float
    width: float
    height: float
    right: float

    def px(self, x: float) -> float:
        """Horizontal place of `x`."""
        return LEFT + (x - self.x0) / ((self.x1 - self.x0) or 1.0) * (
            self.width - LEFT - self.right
        )

    def py(self, y: float) -> float:
        """Vertical place of `y`."""
        share = (y - self.y0) / ((self.y1 - self.y0) or 1.0)
        return self.height - BOTTOM - share * (self.height - TOP - BOTTOM)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers that cover [low, high]."""
    if not high > low:
        high = low + (abs(low) or 1.0)
    rough = (high - low) / max(count - 1, 1)
    base = 10.0 ** math.floor(math.log10(rough))
    factors = (1, 2, 2.5, 5, 10) if base >= 0.1 else (1, 2, 5, 10)
    step = next(factor * base for factor in factors if factor * base >= rough * 0.999)
    first = math.floor(low / step + 1e-9)
    return [round(n * step, 12) for n in range(first, math.ceil(high / step - 1e-9) + 1)]


def x_gap(x: Sequence[float]) -> float:
    """Smallest distance between neighbours of a sorted sequence; 1 for fewer than two."""
    return min((b - a for a, b in pairwise(x)), default=1.0) or 1.0


def heading(title: str) -> str:
    """The chart's title."""
    return label(18, 28, title, 14, 'font-weight="650"')


def y_axis(frame: Frame, values: Sequence[float], percent: bool) -> str:
    """Grid lines with their values; `percent` prints shares."""
    parts = []
    for value in values:
        y = frame.py(value)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{frame.width - frame.right:.1f}"/>')
        text = f"{value:.0%}" if percent else _number(value)
        parts.append(label(LEFT - 8, y + 4, text, 11, 'class="soft" text-anchor="end"'))
    return "".join(parts)


def _number(value: float) -> str:
    return f"{value / 1000:g}k" if abs(value) >= 10_000 else f"{value:.4g}"


def x_axis(frame: Frame, name: str = "step") -> str:
    """Whole numbers below the plot, of steps or of what `name` says."""
    steps = [x for x in ticks(frame.x0, frame.x1, 6) if frame.x0 <= x <= frame.x1 and x == int(x)]
    y, attributes = frame.height - 14, 'class="soft" text-anchor="middle"'
    numbers = [label(frame.px(x), y, _number(x), 11, attributes) for x in steps]
    if name == "step":
        return "".join(numbers) + label(14, y, name, 11, 'class="soft"')
    end = frame.width - frame.right
    return "".join(numbers) + label(
        end, frame.height - BOTTOM - 8, f"{name} →", 11, 'class="soft" text-anchor="end"'
    )


def key(names: Sequence[tuple[str, str]]) -> str:
    """What the colours mean: (name, CSS colour), in a row below the title."""
    x, parts = 18.0, []
    for name, color in names:
        parts.append(f'<rect x="{x:.1f}" y="37" width="10" height="10" rx="3" fill="{color}"/>')
        parts.append(label(x + 15, 46, name, 11, 'class="soft"'))
        x += 15 + text_width(name, 11) + 14
    return "".join(parts)
