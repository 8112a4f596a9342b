"""A row's bytes as a JSON object, or why they are none."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def parse(data: bytes) -> dict[str, Any]:
    """The JSON object in a row's bytes.

    Raises:
        ValueError: there is none, or no other program could read it as UTF-8 JSON; says why.
    """
    text = utf8(data)
    with _explained(0):
        content = DECODER.decode(text)
    if not isinstance(content, dict):
        raise ValueError(f"must be a JSON object, not {text[:40]}")
    if "\\u" in text:
        _check_surrogates(content)
    return content


def parse_next(text: str, start: int) -> tuple[Any, int]:
    """The JSON value that begins at `start`, and where it ends.

    Raises:
        ValueError: there is none, or no other program could read it; says why.
    """
    with _explained(start):
        content, end = DECODER.raw_decode(text, start)
    if text.find("\\u", start, end) >= 0:
        _check_surrogates(content)
    return content, end


def utf8(data: bytes) -> str:
    """The text in `data`.

    Raises:
        ValueError: it is not UTF-8; says why.
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 ({error.reason} at byte {error.start})") from None


@contextmanager
def _explained(start: int) -> Iterator[None]:
    """Python's errors as one of a line, with the place counted from `start`."""
    try:
        yield
    except json.JSONDecodeError as error:
        # Its own text counts lines, and a row may be a line of a file.
        place = f"character {error.pos - start}"
        raise ValueError(f"is not JSON ({error.msg}: {place})") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON ({error})") from None


def _no_number(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


def _finite(number: str) -> float:
    # Python would take 1e999 for infinity, which it could not write as JSON again.
    if not math.isfinite(value := float(number)):
        raise ValueError(f"{number} is too large a number")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Python would keep the last one only.
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} is there twice")
    return content


def _check_surrogates(content: Any) -> None:
    """Refuse half of a surrogate pair (\\ud800 to \\udfff alone): no tokenizer takes it."""
    try:
        json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = ascii(error.object[error.start])
        raise ValueError(f"holds {half}, half of a surrogate pair, which is no text") from None


DECODER = json.JSONDecoder(
    parse_float=_finite, parse_constant=_no_number, object_pairs_hook=_unique
)
"""Stricter than Python's own: it takes what other programs would take."""
