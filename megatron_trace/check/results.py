"""Whether a run's results have a place to go."""

import tempfile
from pathlib import Path

from megatron_trace.config import Config, SettingError


def check_run_name(config: Config) -> None:
    """Refuse a name that is no folder's.

    Raises:
        SettingError: it is none.
    """
    if config.run.name in ("", ".", "..") or "/" in config.run.name:
        raise SettingError(
            "run.name", config.run.name, "must be the name of a folder, without a slash"
        )


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
