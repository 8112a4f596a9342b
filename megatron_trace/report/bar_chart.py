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
    # Half a step at both ends: the first and the last bar are as wide as the others.
    frame = Frame(
        x_low=min(x) - 0.5,
        x_high=max(x) + 0.5,
        y_low=0.0,
        y_high=y_ticks[-1],
    )
    parts = [y_axis(frame, y_ticks, percent=False), x_axis(frame)]
    bottoms = [0.0] * len(x)
    for layer in layers:
        tops = [bottom + height for bottom, height in zip(bottoms, layer.heights, strict=True)]
        parts += _drawn(layer, x, bottoms, tops, frame)
        bottoms = tops
    parts.append(legend([(layer.name, layer.color) for layer in layers]))
    return chart(title, parts, frame)


def _drawn(
    layer: Layer,
    x: Sequence[float],
    bottoms: Sequence[float],
    tops: Sequence[float],
    frame: Frame,
) -> list[str]:
    """The layer's rectangle in each bar."""
    step = frame.x_pixel(1.0) - frame.x_pixel(0.0)
    # Evaluated or logged steps may be further apart than 1; a bar never covers more than one step.
    width = BAR_SHARE * step * min(smallest_gap(x), 1.0)
    parts = []
    for center, bottom, top in zip(x, bottoms, tops, strict=True):
        left = frame.x_pixel(center) - width / 2
        upper = frame.y_pixel(top)
        height = frame.y_pixel(bottom) - upper
        parts.append(rect(left, upper, width, height, f'fill="{layer.color}"'))
    return parts
