"""Charts as plain SVG: lines over steps, stacked bars, a reliability diagram."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from megatron_trace.report.axes import (
    BOTTOM,
    LEFT,
    TOP,
    Frame,
    heading,
    key,
    ticks,
    x_axis,
    x_gap,
    y_axis,
)
from megatron_trace.report.svg import document, escape, label, text_width

WIDTH, HEIGHT = 560.0, 300.0

_STYLE = """
.mt .grid{stroke:var(--faint);stroke-width:1}.mt .line{fill:none;stroke-width:2.25;stroke-linejoin:round}
.mt .dash{stroke-dasharray:5 4;stroke-width:1.75}.mt .band{fill-opacity:.14}
"""


@dataclass
class Series:
    """One line of a chart.

    Attributes:
        name: printed at its end, in its colour.
        x, y: the points; points that are not finite are left out.
        color: a CSS colour, mostly one of the variables in `drawing.STYLE`.
        error: standard errors; drawn as a band of ± 1 around the points.
        window: the line is the running mean over this many points, which stay visible as dots; a short
            series is not smoothed.
        dashed: a reference rather than a result.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    color: str = "var(--blue)"
    error: Sequence[float] = field(default_factory=tuple)
    window: int = 1
    dashed: bool = False


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """Centred mean over at most `window` values, fewer at both ends."""
    half = window // 2
    slices = [values[max(0, n - half) : n + half + 1] for n in range(len(values))]
    return [sum(part) / len(part) for part in slices]


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
    """Lines over training steps, each named at its end. Series without finite points are left out.

    Without any series left the chart is empty text.

    Args:
        title: printed above the chart.
        percent: the values are shares; print them as such.
        limits: range of y; by default that of the points, errors included.
        x_name: what x counts.
    """
    drawn = [clean for one in series if (clean := _finite(one)).x]
    if not drawn:
        return ""
    highs = [y + (one.error[n] if one.error else 0) for one in drawn for n, y in enumerate(one.y)]
    lows = [y - (one.error[n] if one.error else 0) for one in drawn for n, y in enumerate(one.y)]
    y_ticks = ticks(*(limits or (min(lows), max(highs))))
    if limits is None and percent:
        y_ticks = ticks(max(y_ticks[0], 0.0), min(y_ticks[-1], 1.0))
    xs = [x for one in drawn for x in one.x]
    right = 26 + max(text_width(one.name, 12.6) for one in drawn)
    frame = Frame(min(xs), max(xs), y_ticks[0], y_ticks[-1], width, height, right)
    parts = [heading(title), y_axis(frame, y_ticks, percent), x_axis(frame, x_name)]
    parts += [_line(one, frame, x_name) for one in drawn] + _names(drawn, frame)
    return document("".join(parts), width, height, title, _STYLE)


def stacked_bars(
    title: str,
    x: Sequence[float],
    parts: Sequence[tuple[str, Sequence[float], str]],
    *,
    width: float = WIDTH,
    height: float = HEIGHT,
) -> str:
    """One bar per step; `parts` are (name, heights, CSS colour) from the bottom up, empty ones left out."""
    parts = [part for part in parts if any(part[1])]
    totals = [sum(values[n] for _, values, _ in parts) for n in range(len(x))]
    if not totals or max(totals) <= 0:
        return ""
    y_ticks = ticks(0.0, max(totals))
    frame = Frame(min(x) - 0.5, max(x) + 0.5, 0.0, y_ticks[-1], width, height, 18)
    bar = (frame.px(1.0) - frame.px(0.0)) * min(x_gap(x), 1.0)
    body, base = [heading(title), y_axis(frame, y_ticks, False), x_axis(frame)], [0.0] * len(x)
    for _, values, color in parts:
        for n, value in enumerate(values):
            top, bottom = frame.py(base[n] + value), frame.py(base[n])
            body.append(
                f'<rect x="{frame.px(x[n]) - bar * 0.42:.2f}" y="{top:.2f}" width="{bar * 0.84:.2f}" '
                f'height="{bottom - top:.2f}" fill="{color}"/>'
            )
            base[n] += value
    body.append(key([(name, color) for name, _, color in parts]))
    return document("".join(body), width, height, title, _STYLE)


def reliability(
    title: str,
    groups: Sequence[tuple[str, Sequence[tuple[float, float, int]], str]],
    *,
    width: float = WIDTH,
    height: float = HEIGHT,
) -> str:
    """Success over prediction; on the diagonal the predictor is calibrated.

    `groups` are (name, bins, CSS colour), a bin is (mean prediction, mean success, count). The area of a dot
    is its share of the group's anchors.
    """
    if not any(bins for _, bins, _ in groups):
        return ""
    frame = Frame(0.0, 1.0, 0.0, 1.0, width, height, 18)
    shares = [0.0, 0.25, 0.5, 0.75, 1.0]
    body = [heading(title), y_axis(frame, shares, True)]
    for x in shares:
        body.append(
            label(frame.px(x), height - 14, f"{x:.0%}", 11, 'class="soft" text-anchor="middle"')
        )
    body.append(
        label(width - 18, height - BOTTOM - 8, "predicted →", 11, 'class="soft" text-anchor="end"')
    )
    body.append(label(LEFT + 6, TOP + 12, "↑ succeeded", 11, 'class="soft"'))
    diagonal = f"M{frame.px(0):.1f} {frame.py(0):.1f}L{frame.px(1):.1f} {frame.py(1):.1f}"
    body.append(f'<path class="line dash" stroke="var(--bare)" d="{diagonal}"/>')
    for name, bins, color in groups:
        total = sum(count for *_, count in bins) or 1
        body.append(_path([(frame.px(p), frame.py(s)) for p, s, _ in bins], color))
        for p, s, count in bins:
            tooltip = escape(f"{name}: predicted {p:.2f}, succeeded {s:.2f}, {count} anchors")
            radius = max(2.5, 16 * math.sqrt(count / total))
            body.append(
                f'<circle cx="{frame.px(p):.1f}" cy="{frame.py(s):.1f}" r="{radius:.1f}" fill="{color}" '
                f'fill-opacity=".35" stroke="{color}"><title>{tooltip}</title></circle>'
            )
    body.append(key([(name, color) for name, _, color in groups]))
    return document("".join(body), width, height, title, _STYLE)


def _finite(one: Series) -> Series:
    error = one.error or [0.0] * len(one.y)
    keep = [n for n, y in enumerate(one.y) if math.isfinite(y) and math.isfinite(error[n])]
    kept_error = [error[n] for n in keep] if one.error else ()
    window = one.window if len(keep) >= 3 * one.window else 1
    return replace(
        one, window=window, x=[one.x[n] for n in keep], y=[one.y[n] for n in keep], error=kept_error
    )


def _path(points: Sequence[tuple[float, float]], color: str, dashed: bool = False) -> str:
    steps = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return (
        f'<path class="line{" dash" if dashed else ""}" stroke="{color}" d="M{steps}"/>'
        if points
        else ""
    )


def _line(one: Series, frame: Frame, x_name: str) -> str:
    parts, y = [], running_mean(one.y, one.window)
    if one.error:
        upper = [
            (frame.px(x), frame.py(v + e)) for x, v, e in zip(one.x, one.y, one.error, strict=True)
        ]
        lower = [
            (frame.px(x), frame.py(v - e)) for x, v, e in zip(one.x, one.y, one.error, strict=True)
        ]
        outline = "L".join(f"{a:.1f} {b:.1f}" for a, b in upper + lower[::-1])
        parts.append(f'<path class="band" fill="{one.color}" d="M{outline}Z"/>')
    points = [(frame.px(a), frame.py(b)) for a, b in zip(one.x, y, strict=True)]
    parts.append(_path(points, one.color, one.dashed))
    if not one.dashed:
        faint = 'fill-opacity=".35"' if one.window > 1 else ""
        radius = 2 if one.window > 1 else 3
        dots = [(frame.px(a), frame.py(b), a, b) for a, b in zip(one.x, one.y, strict=True)]
        parts += [
            f'<circle cx="{a:.1f}" cy="{b:.1f}" r="{radius}" fill="{one.color}" {faint}>'
            f"<title>{x_name} {step:,.6g}: {value:.4g}</title></circle>"
            for a, b, step, value in dots
        ]
    return "".join(parts)


def _names(series: Sequence[Series], frame: Frame) -> list[str]:
    ends = sorted(
        (frame.py(running_mean(one.y, one.window)[-1]), n) for n, one in enumerate(series)
    )
    places: list[float] = []
    for y, _ in ends:
        places.append(max(y, places[-1] + 15) if places else y)
    excess = max(0.0, places[-1] - (frame.height - BOTTOM))
    x = frame.width - frame.right + 9
    return [
        label(
            x,
            place - excess + 4,
            series[n].name,
            12,
            f'style="fill:{series[n].color}" font-weight="600"',
        )
        for place, (_, n) in zip(places, ends, strict=True)
    ]
