"""The error of a wrong setting."""

from enum import Enum
from typing import Any


class SettingError(ValueError):
    """A setting that cannot work: its dotted name, its value and what would be right."""

    def __init__(self, name: str, value: Any, remedy: str):
        shown = value.value if isinstance(value, Enum) else value
        super().__init__(f"{name} = {shown!r}: {remedy}")
