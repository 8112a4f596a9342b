"""Whether torchrun leaves the run the time that it needs to end."""

import os
from collections.abc import Mapping, Sequence

import psutil

from megatron_trace.config import Config, SettingError

OPTIONS = ("--shutdown-timeout", "--shutdown_timeout")
VARIABLES = ("PET_SHUTDOWN_TIMEOUT", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT")
DEFAULT_S = 30.0
"""Seconds, as in `torch.distributed.run`."""


def check_launcher(config: Config) -> None:
    """Refuse a time to end after which torchrun would have killed the ranks while they save.

    Raises:
        SettingError: `stop.grace_s` is not shorter than torchrun's `--shutdown-timeout`.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return
    try:
        command = psutil.Process(os.getppid()).cmdline()
    except psutil.Error:
        return
    grace_s, allowed_s = config.stop.grace_s, shutdown_timeout(command, os.environ)
    if grace_s >= allowed_s:
        remedy = (
            f"torchrun kills its ranks {allowed_s:g} s after it asks them to end; "
            f"start torchrun with --shutdown-timeout {grace_s + 60:.0f}, or lower it"
        )
        raise SettingError("stop.grace_s", grace_s, remedy)


def shutdown_timeout(command: Sequence[str], environment: Mapping[str, str]) -> float:
    """Seconds from SIGTERM to SIGKILL for the ranks of the torchrun that `command` started."""
    for word, following in zip(command, [*command[1:], ""], strict=True):
        option, equals, value = word.partition("=")
        if option in OPTIONS:
            return float(value if equals else following)
    for variable in VARIABLES:
        if variable in environment:
            return float(environment[variable])
    return DEFAULT_S
