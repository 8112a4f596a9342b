"""The symbols of a tree's picture, and what they mean."""

from megatron_trace.report.svg import SOFT, circle, heat, label, moved, path, polyline, rect
from megatron_trace.report.text_fitting import text_width
from megatron_trace.report.tree_layout import MARGIN

TICK = "M-4 0l3 3.5l5.5 -6.5"
CROSS = "M-3.5 -3.5l7 7m0 -7l-7 7"
"""Paths around the origin."""

HEAT_STEPS = 24
"""Shades in the scale of success rates."""


def badge(x: float, y: float, text: str) -> str:
    """A pill around (x, y) with a count."""
    pill = rect(x - 15, y - 8, 30, 16, 'class="badge" rx="8"')
    return pill + label(x, y + 4, text, 11, 'class="on" text-anchor="middle" font-weight="700"')


def magnifier(x: float, y: float) -> str:
    """A magnifying glass around (x, y): the turn searches."""
    glass = circle(0, 0, 3.6, 'class="glass"') + path("M2.6 2.6l3 3", 'class="glass"')
    return moved(glass, x, y)


def success_mark(x: float, y: float, success: bool) -> str:
    """A green disc with a tick around (x, y), or a red one with a cross."""
    # A shape besides the colour: about one man in twelve does not tell red from green.
    color, lines = ("good", TICK) if success else ("bad", CROSS)
    disc = circle(0, 0, 9, f'class="{color}"')
    return moved(disc + path(lines, 'class="mark"'), x, y)


def legend(y: float, continuations: bool) -> str:
    """The symbols in a row at height `y`; those of continuations where there are any."""
    row = _Row(y)
    row.add(_heat_scale(row.x, y), 72, "share of rollouts below that succeed, 0 to 100 %")
    row.add(magnifier(row.x + 5, y - 1), 12, "search")
    row.add(_edge_sample(row.x, y, "bare"), 30, "bare rollout")
    if continuations:
        row.add(_edge_sample(row.x, y, "continuation"), 30, "continuation")
        row.add(badge(row.x + 15, y, "+2"), 30, "anchor and its continuations")
    row.add(success_mark(row.x + 9, y, True), 18, "success")
    row.add(success_mark(row.x + 9, y, False), 18, "failure")
    return "".join(row.parts)


class _Row:
    """Symbols with their texts, from left to right; `x` is where the next one begins."""

    def __init__(self, y: float) -> None:
        self.x = MARGIN
        self.parts: list[str] = []
        self._y = y

    def add(self, symbol: str, width: float, text: str) -> None:
        """Append a symbol that is `width` pixels wide and what it means."""
        self.parts.append(symbol)
        self.parts.append(label(self.x + width + 7, self._y + 4, text, 11, SOFT))
        self.x += width + 7 + text_width(text, 11) + 16


def _heat_scale(x: float, y: float) -> str:
    parts = []
    for step in range(HEAT_STEPS):
        color = heat(step / (HEAT_STEPS - 1))
        # A little wider than their distance, so that no gap shows between two shades.
        parts.append(rect(x + step * 3, y - 5, 3.2, 10, f'fill="{color}"'))
    return "".join(parts)


def _edge_sample(x: float, y: float, stage: str) -> str:
    return polyline([(x, y), (x + 30, y)], f'class="edge {stage}"')
