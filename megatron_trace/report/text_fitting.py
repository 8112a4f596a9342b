"""How wide a text is in a picture, and how it is cut where it is too wide.

An SVG does not break lines, and nobody can ask the reader's browser for the width of its font. So
widths are estimated for a wide sans-serif font: a text that fits here fits everywhere.
"""

import unicodedata


def text_width(text: str, size: float) -> float:
    """Approximate width in pixels of `text` at font size `size`."""
    return sum(_width_in_em(char) for char in text) * size


def _width_in_em(char: str) -> float:
    """Width of a character as a share of the font size."""
    # Chinese, Japanese and Korean characters fill a square.
    if unicodedata.east_asian_width(char) in "WF":
        return 1.0
    if char in "iljtfrI.,:;'|!()[] ":
        return 0.37
    if char in "mwMW%@":
        return 0.82
    return 0.71 if char.isupper() else 0.62


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
        while words:
            longer = f"{line} {words[0]}"
            if text_width(longer, size) > width:
                break
            line = longer
            words.pop(0)
        # A single word may be wider than a line.
        out.append(fit(line, width, size))
    if words:
        out.append(fit(" ".join(words), width, size))
    return out
