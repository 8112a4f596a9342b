"""The vocabulary of SVG that charts and trees share: one theme for light and dark, escaping, fitting."""

import html
import re
import unicodedata

STYLE = """
.mt{--ink:#1d2530;--soft:#5d6775;--faint:#dfe3e8;--card:#ffffff;--bare:#8a94a1;--blue:#2467c9;--teal:#12857f;
--orange:#c8661b;--violet:#7a4fc0;--rose:#bf3f6b;--good:#23864f;--bad:#c23b2e;
font-family:Inter,system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,"DejaVu Sans",sans-serif}
@media(prefers-color-scheme:dark){.mt{--ink:#e8ebef;--soft:#9aa5b3;--faint:#333b46;--card:#191e25;--bare:#7d8794;
--blue:#6ba5f7;--teal:#43bdb4;--orange:#ec9650;--violet:#b193ec;--rose:#ec7fa3;--good:#4fbb80;--bad:#ee7466}}
.mt text{fill:var(--ink)}.mt .soft{fill:var(--soft)}.mt .card{fill:var(--card)}
"""
"""CSS of every drawing. Colours are variables, so that a drawing follows the reader's light or dark theme."""

_RED, _AMBER, _GREEN = (0xC2, 0x3B, 0x2E), (0xB9, 0x82, 0x14), (0x23, 0x86, 0x4F)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


def escape(text: object) -> str:
    """`text` for use in HTML and SVG, in elements and attributes; characters that XML forbids become �."""
    return html.escape(_CONTROL.sub("\ufffd", str(text)), quote=True)


def heat(value: float) -> str:
    """Colour of a success rate: red at 0, amber at ½, green at 1."""
    value = min(max(value, 0.0), 1.0)
    start, end, share = (
        (_RED, _AMBER, value * 2) if value < 0.5 else (_AMBER, _GREEN, value * 2 - 1)
    )
    return "#" + "".join(
        f"{round(a + (b - a) * share):02x}" for a, b in zip(start, end, strict=True)
    )


def text_width(text: str, size: float) -> float:
    """Approximate width in pixels of `text` at font size `size`, in a wide font of the theme."""
    return sum(_em(char) for char in text) * size


def _em(char: str) -> float:
    if unicodedata.east_asian_width(char) in "WF":
        return 1.0
    if char in "iljtfrI.,:;'|!()[] ":
        return 0.37
    return 0.82 if char in "mwMW%@" else 0.71 if char.isupper() else 0.62


def fit(text: str, width: float, size: float) -> str:
    """`text` on one line, cut with … where it is wider than `width` pixels at font size `size`."""
    text = " ".join(text.split())
    if text_width(text, size) <= width:
        return text
    while text and text_width(text + "…", size) > width:
        text = text[:-1]
    return text.rstrip() + "…"


def wrap(text: str, width: float, size: float, lines: int) -> list[str]:
    """`text` in at most `lines` lines of `width` pixels; the last is cut where needed."""
    words = text.split()
    out: list[str] = []
    while words and len(out) < lines - 1:
        line = words.pop(0)
        while words and text_width(f"{line} {words[0]}", size) <= width:
            line = f"{line} {words.pop(0)}"
        out.append(fit(line, width, size))
    return [*out, fit(" ".join(words), width, size)] if words else out


def document(body: str, width: float, height: float, label: str, style: str = "") -> str:
    """A complete SVG of that size, usable on its own or inside a page; `label` is read by screen readers."""
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="mt" role="img" aria-label="{escape(label)}" {size}>'
        f"<style>{STYLE}{style}</style>"
        f'<rect class="card" width="100%" height="100%" rx="10"/>{body}</svg>'
    )


def label(x: float, y: float, text: str, size: float, attributes: str = "") -> str:
    """One line of escaped text with its baseline at (x, y)."""
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" {attributes}>{escape(text)}</text>'
