"""Whether a run's results have a place to go."""

import tempfile
from pathlib import Path

from megatron_trace.config import Config, SettingError

LONGEST_NAME = 200
"""Bytes of a run's name. File systems allow 255, and a folder moved aside gets a longer name."""


def check_run_name(config: Config) -> None:
    """Refuse a name that is no folder's, or that cannot be shown.

    Raises:
        SettingError: it is one.
    """
    name = config.run.name
    if name in ("", ".", "..") or "/" in name:
        raise SettingError("run.name", name, "must be the name of a folder, without a slash")
    if not name.isprintable():
        raise SettingError("run.name", name, "must have only printable characters")
    if len(name.encode()) > LONGEST_NAME:
        raise SettingError("run.name", name, f"must have at most {LONGEST_NAME} bytes")


def check_run_directory(config: Config) -> None:
    """Refuse a folder in which this machine cannot write; makes it.

    Raises:
        SettingError: it cannot.
    """
    directory = Path(config.run.directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for folder in (
            directory,
            directory / config.run.name,
            directory / config.run.name / "checkpoints",
        ):
            if folder.exists():
                with tempfile.TemporaryFile(dir=folder):
                    pass
    except OSError as error:
        remedy = (
            f"results cannot be written there ({error.strerror}); choose a folder that is writable"
        )
        raise SettingError("run.directory", config.run.directory, remedy) from None
