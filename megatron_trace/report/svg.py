"""The SVG elements that charts and trees share, and one theme for light and dark."""

import html
import re
from collections.abc import Sequence

# A drawing inside a page and one in a file of documentation follow the same rules, so each brings
# them along.
STYLE = """
.mt{--ink:#1d2530;--soft:#5d6775;--faint:#dfe3e8;--card:#ffffff;--bare:#8a94a1;--blue:#2467c9;--teal:#12857f;
--orange:#c8661b;--violet:#7a4fc0;--rose:#bf3f6b;--good:#23864f;--bad:#c23b2e;
font-family:Inter,system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,"DejaVu Sans",sans-serif}
@media(prefers-color-scheme:dark){.mt{--ink:#e8ebef;--soft:#9aa5b3;--faint:#333b46;--card:#191e25;--bare:#7d8794;
--blue:#6ba5f7;--teal:#43bdb4;--orange:#ec9650;--violet:#b193ec;--rose:#ec7fa3;--good:#4fbb80;--bad:#ee7466}}
.mt text{fill:var(--ink)}.mt .soft{fill:var(--soft)}.mt .card{fill:var(--card)}
"""
"""CSS of every drawing.

Colours are variables, so that a drawing follows the reader's light or dark theme.
"""

SOFT = 'class="soft"'
SOFT_MIDDLE = 'class="soft" text-anchor="middle"'
SOFT_END = 'class="soft" text-anchor="end"'
BOLD = 'font-weight="650"'
"""Attributes of texts: paler, centred, ending at x, and bold."""

# XML has no way to write these characters, escaped or not: one of them makes the whole picture
# unreadable.
_FORBIDDEN_IN_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")

_RED, _AMBER, _GREEN = (0xC2, 0x3B, 0x2E), (0xB9, 0x82, 0x14), (0x23, 0x86, 0x4F)


def printable(text: object) -> str:
    """`text` with � instead of each character that XML forbids."""
    return _FORBIDDEN_IN_XML.sub("\ufffd", str(text))


def escape(text: object) -> str:
    """`text` for use in HTML and SVG, in elements and attributes; characters that XML forbids
    become �.
    """
    return html.escape(printable(text), quote=True)


def heat(value: float) -> str:
    """Colour of a success rate: red at 0, amber at ½, green at 1."""
    value = min(max(value, 0.0), 1.0)
    # By way of amber: halfway between red and green itself lies a brown.
    if value < 0.5:
        return _mixed(_RED, _AMBER, value * 2)
    return _mixed(_AMBER, _GREEN, value * 2 - 1)


def _mixed(start: Sequence[int], end: Sequence[int], share: float) -> str:
    """The colour at `share` of the way from one colour [3] to another."""
    color = "#"
    for a, b in zip(start, end, strict=True):
        channel = round(a + (b - a) * share)
        color += f"{channel:02x}"
    return color


def document(body: str, width: float, height: float, label: str, style: str = "") -> str:
    """A complete SVG of that size, usable alone or inside a page; `label` is read by screen
    readers.
    """
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="mt" role="img" aria-label="{escape(label)}" {size}>'
        f"<style>{STYLE}{style}</style>"
        f'<rect class="card" width="100%" height="100%" rx="10"/>{body}</svg>'
    )


def label(x: float, y: float, text: str, size: float, attributes: str = "") -> str:
    """One line of escaped text with its baseline at (x, y)."""
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" {attributes}>{escape(text)}</text>'


def name_style(color: str) -> str:
    """Attributes of a text that names something drawn in `color`."""
    # A style, since the CSS of all texts (`.mt text`) wins over the attribute `fill`.
    return f'style="fill:{color}" font-weight="600"'


def rect(
    x: float, y: float, width: float, height: float, attributes: str = "", tooltip: str = ""
) -> str:
    """A rectangle with its upper left corner at (x, y)."""
    size = f'width="{_number(width)}" height="{_number(height)}"'
    return _shape("rect", f'x="{_number(x)}" y="{_number(y)}" {size} {attributes}', tooltip)


def circle(x: float, y: float, radius: float, attributes: str = "", tooltip: str = "") -> str:
    """A circle around (x, y)."""
    place = f'cx="{_number(x)}" cy="{_number(y)}" r="{_number(radius)}"'
    return _shape("circle", f"{place} {attributes}", tooltip)


def path(commands: str, attributes: str = "") -> str:
    """A path of SVG commands, such as `M0 0H10`."""
    return _shape("path", f'{attributes} d="{commands}"')


def polyline(points: Sequence[tuple[float, float]], attributes: str = "") -> str:
    """Straight lines from point to point; nothing without points."""
    return path(f"M{joined(points)}", attributes) if points else ""


def joined(points: Sequence[tuple[float, float]]) -> str:
    """Points as the part of a path's commands that draws straight lines between them."""
    return "L".join(f"{_number(x)} {_number(y)}" for x, y in points)


def moved(content: str, x: float, y: float) -> str:
    """`content` with its origin at (x, y)."""
    return f'<g transform="translate({_number(x)} {_number(y)})">{content}</g>'


def _shape(tag: str, attributes: str, tooltip: str = "") -> str:
    if not tooltip:
        return f"<{tag} {attributes.strip()}/>"
    return f"<{tag} {attributes.strip()}><title>{escape(tooltip)}</title></{tag}>"


def _number(value: float) -> str:
    """At most two decimals: bars of a long run are narrower than a tenth of a pixel."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
