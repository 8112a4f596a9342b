"""A function of the user's that a setting names as FILE.py:FUNCTION."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_trace.config.error import SettingError, did_you_mean
from megatron_trace.config.plugins import takes
from megatron_trace.config.source import FOREIGN, load_source, place_of


@dataclass(frozen=True)
class FileFunction:
    """A function of a file.

    Attributes:
        setting: dotted name of the setting that names it.
        path: the file, absolute.
        function: the function itself.
    """

    setting: str
    path: Path
    function: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        """What the function returns.

        Raises:
            ValueError: whatever the function raises, as one line with the line of its file.
        """
        try:
            return self.function(*arguments)
        except FOREIGN as error:
            place = f"{self.path.name}: {place_of(error, self.path)}"
            raise ValueError(f"{self.setting} fails: {place}") from None


def find_function(setting: str, value: str, arguments: int) -> FileFunction:
    """The function that `value` names.

    Args:
        setting: dotted name of the setting, for messages.
        value: FILE.py:FUNCTION.
        arguments: with how many arguments it will be called.

    Raises:
        SettingError: it is not written so, there is no such file or function, the file cannot be
            imported, or the function takes other arguments.
    """
    file, _, name = value.rpartition(":")
    if not file.endswith(".py") or not name:
        raise SettingError(setting, value, "must be FILE.py:FUNCTION")
    path = Path(file).absolute()
    if not path.is_file():
        raise SettingError(setting, value, f"no such file: {file}")
    try:
        module = load_source(path, f"functions_{path.stem}")
    except FOREIGN as error:
        raise SettingError(
            setting, value, f"cannot be imported: {place_of(error, path)}"
        ) from error
    own = {
        key: one for key, one in vars(module).items() if callable(one) and not key.startswith("_")
    }
    if name not in own:
        close = did_you_mean(name, own) if own else "the file defines none"
        raise SettingError(setting, value, f"no function {name} in the file; {close}")
    if not takes(own[name], arguments):
        number = "one argument" if arguments == 1 else f"{arguments} arguments"
        raise SettingError(setting, value, f"the function must take {number}")
    return FileFunction(setting, path, own[name])


def absolute_function(value: str) -> str:
    """FILE.py:FUNCTION with the file's absolute path; any other text as it is."""
    file, _, name = value.rpartition(":")
    return f"{Path(file).absolute()}:{name}" if file.endswith(".py") else value
