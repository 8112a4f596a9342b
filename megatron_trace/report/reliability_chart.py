"""A reliability diagram: how often what was predicted came true."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from megatron_trace.report.axes import TOP, Frame, chart, legend, x_labels, x_name, y_axis
from megatron_trace.report.metrics import Bin
from megatron_trace.report.svg import SOFT, circle, label, polyline

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass
class Group:
    """Bins that are drawn together, such as those of the last steps."""

    name: str
    bins: Sequence[Bin]
    color: str


def reliability_chart(title: str, groups: Sequence[Group]) -> str:
    """Success over prediction; on the diagonal the predictor is calibrated.

    The area of a dot is its share of the group's anchors.

    Returns:
        An SVG; empty text without bins.
    """
    if not any(group.bins for group in groups):
        return ""
    frame = Frame(0.0, 1.0, 0.0, 1.0)
    parts = [
        y_axis(frame, SHARES, percent=True),
        x_labels(frame, [(share, f"{share:.0%}") for share in SHARES]),
        x_name(frame, "predicted"),
        label(frame.left + 6, TOP + 12, "↑ succeeded", 11, SOFT),
        polyline(frame.pixels((0, 1), (0, 1)), 'class="line dash" stroke="var(--bare)"'),
    ]
    parts += [_drawn(group, frame) for group in groups]
    parts.append(legend([(group.name, group.color) for group in groups]))
    return chart(title, parts, frame)


def _drawn(group: Group, frame: Frame) -> str:
    predicted = [prediction for prediction, _, _ in group.bins]
    succeeded = [success for _, success, _ in group.bins]
    points = frame.pixels(predicted, succeeded)
    parts = [polyline(points, f'class="line" stroke="{group.color}"')]
    total = sum(count for _, _, count in group.bins) or 1
    attributes = f'fill="{group.color}" fill-opacity=".35" stroke="{group.color}"'
    for (x, y), (prediction, success, count) in zip(points, group.bins, strict=True):
        rates = f"predicted {prediction:.2f}, succeeded {success:.2f}"
        # The eye compares areas, and an area grows with the square of the radius.
        radius = max(2.5, 16 * math.sqrt(count / total))
        tooltip = f"{group.name}: {rates}, {count} anchors"
        parts.append(circle(x, y, radius, attributes, tooltip))
    return "".join(parts)
