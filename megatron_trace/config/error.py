"""The error of a wrong setting."""

import difflib
from collections.abc import Iterable
from enum import Enum
from typing import Any


class SettingError(ValueError):
    """A setting that cannot work: its dotted name, its value and what would be right."""

    def __init__(self, name: str, value: Any, remedy: str):
        # All three, so that a worker's error can be pickled.
        super().__init__(name, value, remedy)

    def __str__(self) -> str:
        name, value, remedy = self.args
        shown = value.value if isinstance(value, Enum) else value
        return f"{name} = {shown!r}: {remedy}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the closest known name, or all known names.

    Dotted names are compared by their last part alone. A common section would make any two look
    alike.
    """
    by_last_part = {one.rpartition(".")[2]: one for one in known}
    last_part = name.rpartition(".")[2]
    close = difflib.get_close_matches(last_part, by_last_part, n=1, cutoff=0.5)
    if close:
        return f"did you mean {by_last_part[close[0]]}?"
    return f"there is {', '.join(by_last_part)}"


def one_line(error: BaseException) -> str:
    """The error's text. The lines that OmegaConf adds about its internals are left out."""
    return " ".join(str(error).partition("\n    full_key: ")[0].split())
