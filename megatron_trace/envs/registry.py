"""Environments: each is a file of `builtin/`, or any other file that defines an `Environment`."""

from collections.abc import Callable

from megatron_trace.config import EnvironmentConfig
from megatron_trace.config.plugins import PluginKind, classes_of, methods_missing, takes
from megatron_trace.envs.environment import Environment

_missing = methods_missing(Environment, "reset", "step", "snapshot", "restore")


def _fault(environment: type[Environment], options_class: type) -> str:
    # Nothing is built when the settings are checked, so only the constructor's arguments are.
    if not takes(environment, 3):
        return "its constructor must be `__init__(self, options, max_turns, shared)`"
    return _missing(environment, options_class)


ENVIRONMENTS: PluginKind[type[Environment]] = PluginKind(
    word="environment",
    setting="environment.name",
    section="environment.options",
    package="megatron_trace.envs.builtin",
    defines="one class that derives from Environment",
    definitions=classes_of(Environment),
    fault=_fault,
)
"""All environments."""


def make_environments(settings: EnvironmentConfig) -> Callable[[], Environment]:
    """The maker of episodes. What all episodes share is loaded here, once.

    Raises:
        SettingError: there is no such environment, or its options cannot work.
    """
    options = ENVIRONMENTS.options(settings.name, settings.options)
    return ENVIRONMENTS.find(settings.name).maker(options, settings.max_turns)
