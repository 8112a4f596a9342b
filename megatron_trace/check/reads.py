"""What an environment reads beside settings and tasks, as a text for each file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from megatron_trace.config import Config, SettingError
from megatron_trace.envs import ENVIRONMENTS
from megatron_trace.files.digest import content_digest
from megatron_trace.rollout.episode import described

FOREIGN = (Exception, SystemExit)
"""What an environment may raise. SystemExit would end the program without any message."""


def environment_reads(config: Config) -> dict[str, str]:
    """What `Environment.reads` names, as texts that differ where the contents differ.

    Returns:
        `environment reads NAME` -> a version, or the SHA-256 of a file's content.

    Raises:
        SettingError: the environment cannot say what it reads, or a file is not there.
    """
    settings = config.environment
    options = ENVIRONMENTS.options(settings.name, settings.options)
    try:
        found = _checked(ENVIRONMENTS.find(settings.name).reads(options))
        return {f"environment reads {name}": _content(one) for name, one in found.items()}
    except SettingError:
        raise
    except OSError as error:
        remedy = f"it reads {error.filename}: {error.strerror or error}"
    except FOREIGN as error:
        remedy = f"its reads fails: {described(error)}"
    raise SettingError("environment.name", settings.name, remedy)


def _checked(found: Any) -> Mapping[str, Path | str]:
    if not isinstance(found, Mapping):
        raise TypeError(f"it must return names -> paths or texts, not {found!r}")
    for name, one in found.items():
        if not isinstance(name, str) or not isinstance(one, Path | str):
            raise TypeError(f"it must return names -> paths or texts, not {name!r}: {one!r}")
    return found


def _content(one: Path | str) -> str:
    return one if isinstance(one, str) else f"a file with SHA-256 {content_digest([one])}"
