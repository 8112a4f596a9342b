"""Lines over steps, or over what was sampled."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from megatron_trace.report.axes import HEIGHT, WIDTH, Frame, chart, ticks, x_axis, y_axis
from megatron_trace.report.svg import circle, joined, label, name_style, path, polyline
from megatron_trace.report.text_fitting import text_width

NAME_SIZE = 12.6
"""Font size at which the names at the lines' ends are measured, a little above that at which they
are drawn.
"""

LEAST_RANGE = 1e-3
"""Least range of a y axis, as a share of its values."""

NAME_DISTANCE = 15.0
"""Least vertical distance between two names in pixels."""


@dataclass
class Series:
    """One line of a chart.

    Attributes:
        name: printed at its end, in its colour.
        x, y: the points; points that are not finite are left out.
        color: a CSS colour, mostly one of the variables in `svg.STYLE`.
        error: standard errors; drawn as a band of ± 1 around the points.
        window: the line is the running mean over this many points, which stay visible as dots. A
            series of fewer than three windows is not smoothed.
        dashed: a reference rather than a result.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    color: str = "var(--blue)"
    error: Sequence[float] = field(default_factory=tuple)
    window: int = 1
    dashed: bool = False


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    percent: bool = False,
    limits: tuple[float, float] | None = None,
    x_name: str = "step",
    width: float = WIDTH,
    height: float = HEIGHT,
) -> str:
    """Lines, each with its name at its end. Series without finite points are left out.

    Args:
        title: printed above the chart.
        percent: the values are shares; print them as such.
        limits: range of y; by default that of the points, errors included.
        x_name: what x counts.

    Returns:
        An SVG; empty text where no series is left.
    """
    drawn = [clean for clean in map(_finite, series) if clean.x]
    if not drawn:
        return ""
    y_ticks = _y_ticks(drawn, percent, limits)
    xs = [x for one in drawn for x in one.x]
    # The names stand right of the plot: the longest one says how much room that takes.
    right = 26 + max(text_width(one.name, NAME_SIZE) for one in drawn)
    frame = Frame(min(xs), max(xs), y_ticks[0], y_ticks[-1], width, height, right=right)
    parts = [y_axis(frame, y_ticks, percent), x_axis(frame, x_name)]
    for one in drawn:
        parts += [_band(one, frame), _line(one, frame), _dots(one, frame, x_name)]
    parts += _names(drawn, frame)
    return chart(title, parts, frame)


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """Centred mean over at most `window` values, fewer at both ends."""
    # Centred: a mean over the last values would lag half a window behind what it shows.
    half = window // 2
    means = []
    for n in range(len(values)):
        part = values[max(0, n - half) : n + half + 1]
        means.append(sum(part) / len(part))
    return means


def _finite(one: Series) -> Series:
    """The series without points or errors that are not finite."""
    error = one.error or [0.0] * len(one.y)
    keep = [n for n, y in enumerate(one.y) if math.isfinite(y) and math.isfinite(error[n])]
    return replace(
        one,
        x=[one.x[n] for n in keep],
        y=[one.y[n] for n in keep],
        error=[error[n] for n in keep] if one.error else (),
        window=one.window if len(keep) >= 3 * one.window else 1,
    )


def _y_ticks(
    series: Sequence[Series], percent: bool, limits: tuple[float, float] | None
) -> list[float]:
    # Given limits make charts of different runs comparable by eye.
    if limits is not None:
        return ticks(*limits)
    ends = []
    for one in series:
        low, high = _bounds(one)
        ends += [*low, *high]
    lowest, highest = min(ends), max(ends)
    # Otherwise the rounding errors of a number that never changes would fill the chart.
    least = LEAST_RANGE * max(abs(lowest), abs(highest))
    if highest - lowest < least:
        middle = (lowest + highest) / 2
        lowest, highest = middle - least / 2, middle + least / 2
    found = ticks(lowest, highest)
    # A band of errors may reach below 0 % or above 100 %; the axis need not.
    return ticks(max(found[0], 0.0), min(found[-1], 1.0)) if percent else found


def _bounds(one: Series) -> tuple[list[float], list[float]]:
    """The points less and plus their errors."""
    error = one.error or [0.0] * len(one.y)
    low = [y - e for y, e in zip(one.y, error, strict=True)]
    high = [y + e for y, e in zip(one.y, error, strict=True)]
    return low, high


def _band(one: Series, frame: Frame) -> str:
    if not one.error:
        return ""
    low, high = _bounds(one)
    outline = frame.pixels(one.x, high) + frame.pixels(one.x, low)[::-1]
    return path(f"M{joined(outline)}Z", f'class="band" fill="{one.color}"')


def _line(one: Series, frame: Frame) -> str:
    points = frame.pixels(one.x, running_mean(one.y, one.window))
    kind = "line dash" if one.dashed else "line"
    return polyline(points, f'class="{kind}" stroke="{one.color}"')


def _dots(one: Series, frame: Frame, x_name: str) -> str:
    """A dot with a tooltip at each point, pale and small where the line is smoothed; none on a
    reference.
    """
    if one.dashed:
        return ""
    smoothed = one.window > 1
    attributes = f'fill="{one.color}"' + (' fill-opacity=".35"' if smoothed else "")
    parts = []
    for x, y in zip(one.x, one.y, strict=True):
        tooltip = f"{x_name} {x:,.6g}: {y:.4g}"
        radius = 2 if smoothed else 3
        parts.append(circle(frame.x_pixel(x), frame.y_pixel(y), radius, attributes, tooltip))
    return "".join(parts)


def _names(series: Sequence[Series], frame: Frame) -> list[str]:
    """The names at the lines' ends, moved apart where the ends are too near to each other."""
    ends = []
    for n, one in enumerate(series):
        last = running_mean(one.y, one.window)[-1]
        ends.append((frame.y_pixel(last), n))
    ends.sort()
    places: list[float] = []
    for y, _ in ends:
        lowest = places[-1] + NAME_DISTANCE if places else y
        places.append(max(y, lowest))
    # Moving down may push the last name below the plot: then all move up by what it is too low.
    excess = max(0.0, places[-1] - frame.plot_bottom)
    names = []
    for place, (_, n) in zip(places, ends, strict=True):
        one = series[n]
        y = place - excess + 4
        names.append(label(frame.plot_right + 9, y, one.name, 12, name_style(one.color)))
    return names
