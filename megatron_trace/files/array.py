"""A `.json` file: one JSON array of objects, as the authors of several data sets publish them.

Many files of that name hold an object in every line instead, so these are read too.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from megatron_trace.files.archive import wrong_start
from megatron_trace.files.json_object import parse_next, utf8
from megatron_trace.files.lines import read_lines

SPACE = re.compile(r"\s*")


def read_array(path: str, problems: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number, from 1, and content of every object of the array in `path`, or of every line.

    The text is held in memory, the objects are made one by one.

    Args:
        path: the file.
        problems: gets a line for everything that cannot be read; after an error in the JSON that is
            all the rest.
    """
    try:
        data = Path(path).read_bytes()
        if problem := wrong_start(data):
            raise ValueError(problem)
        text = utf8(data)
    except OSError as error:
        problems.append(f"{path}: cannot be read ({error.strerror or error})")
        return
    except ValueError as error:
        problems.append(f"{path}: {error}")
        return
    start = _after_space(text, 0)
    if text.startswith("{", start):
        yield from read_lines(path, problems)
    elif text.startswith("[", start):
        yield from _elements(path, text, start + 1, problems)
    else:
        problems.append(f"{path}: must be a JSON array of objects, or have an object in every line")


def _elements(
    path: str, text: str, at: int, problems: list[str]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of an array whose text begins before `at`."""
    number = 0
    at = _after_space(text, at)
    closed = text.startswith("]", at)
    while not closed:
        number += 1
        try:
            content, at = parse_next(text, at)
        except ValueError as error:
            problems.append(f"{path}: row {number}: {error}; nothing after it is read")
            return
        if isinstance(content, dict):
            yield number, content
        else:
            problems.append(f"{path}: row {number}: must be a JSON object, not {str(content)[:40]}")
        at = _after_space(text, at)
        closed = text.startswith("]", at)
        if not closed:
            if not text.startswith(",", at):
                problems.append(f"{path}: is cut or damaged after row {number}; copy it again")
                return
            at = _after_space(text, at + 1)
    if text[at + 1 :].strip():
        problems.append(f"{path}: more follows the array's end; it must be one JSON array")


def _after_space(text: str, at: int) -> int:
    found = SPACE.match(text, at)
    assert found is not None, "the pattern matches nothing too"
    return found.end()
