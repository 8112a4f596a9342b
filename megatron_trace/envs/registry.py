"""Environments: each is a file of `builtin/`, or any other file that defines an `Environment`."""

from collections.abc import Callable

from megatron_trace.config import EnvironmentConfig
from megatron_trace.config.plugins import PluginKind, classes_of, methods_missing, takes
from megatron_trace.envs.environment import Environment
from megatron_trace.envs.replayed import Replayed
from megatron_trace.envs.tool_environment import ToolEnvironment

_missing = methods_missing(Environment, "reset", "step", "snapshot", "restore")
_missing_if_replayed = methods_missing(Environment, "reset", "step")
_missing_with_tools = methods_missing(ToolEnvironment, "start", "score")


def _fault(environment: type[Environment], options_class: type) -> str:
    # Nothing is built when the settings are checked, so only the constructor's arguments are.
    if not takes(environment, 3):
        return "its constructor must be `__init__(self, options, max_turns, shared)`"
    if issubclass(environment, ToolEnvironment):
        return _missing_with_tools(environment, options_class)
    missing = _missing_if_replayed if environment.replays else _missing
    return missing(environment, options_class)


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
    environment = ENVIRONMENTS.find(settings.name)
    make = environment.maker(options, settings.max_turns)
    return (lambda: Replayed(make())) if environment.replays else make
