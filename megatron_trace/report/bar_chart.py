"""Stacked bars over steps."""

from collections.abc import Sequence
from dataclasses import dataclass

from megatron_trace.report.axes import Frame, chart, legend, smallest_gap, ticks, x_axis, y_axis
from megatron_trace.report.svg import rect

BAR_SHARE = 0.84
"""Width of a bar as a share of the distance between two bars."""


@dataclass
class Layer:
    """One layer of the bars: its name, its height in each bar, its CSS colour."""

    name: str
    heights: Sequence[float]
    color: str


def stacked_bars(title: str, x: Sequence[float], layers: Sequence[Layer]) -> str:
    """A bar at each x, with its layers from the bottom up; layers without height are left out.

    Returns:
        An SVG; empty text where nothing has a height.
    """
    layers = [layer for layer in layers if any(layer.heights)]
    totals = [sum(layer.heights[n] for layer in layers) for n in range(len(x))]
    if not totals or max(totals) <= 0:
        return ""
    y_ticks = ticks(0.0, max(totals))
    frame = Frame(min(x) - 0.5, max(x) + 0.5, 0.0, y_ticks[-1])
    parts = [y_axis(frame, y_ticks, percent=False), x_axis(frame)]
    width = BAR_SHARE * min(smallest_gap(x), 1.0) * (frame.x_pixel(1.0) - frame.x_pixel(0.0))
    bottoms = [0.0] * len(x)
    for layer in layers:
        tops = [bottom + height for bottom, height in zip(bottoms, layer.heights, strict=True)]
        for n, center in enumerate(x):
            upper, lower = frame.y_pixel(tops[n]), frame.y_pixel(bottoms[n])
            left = frame.x_pixel(center) - width / 2
            parts.append(rect(left, upper, width, lower - upper, f'fill="{layer.color}"'))
        bottoms = tops
    parts.append(legend([(layer.name, layer.color) for layer in layers]))
    return chart(title, parts, frame)
