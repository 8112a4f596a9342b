"""Whether the environment exists and takes its options, before an actor of the fleet builds it."""

import difflib
import inspect
import math
from collections.abc import Iterable, Mapping
from typing import Any, get_type_hints

from megatron_trace.config import Config, SettingError

COUNTS = {"search_qa": ("top_k", "max_observation_chars")}
"""Environment -> options that must be at least 1."""


def check_environment(config: Config) -> None:
    """Refuse an environment that does not exist, and options that its factory does not take.

    Imports the environments, with torch: takes seconds.

    Raises:
        SettingError: there is no such environment or option, or a value cannot work.
    """
    # Only here: the environments import their libraries, and a typo in another setting should not wait for them.
    from megatron_trace.envs import registry

    name, factories = config.environment.name, registry.FACTORIES
    if name not in factories:
        raise SettingError(
            "environment.name", name, "no such environment; " + _hint(name, factories)
        )
    factory, options = factories[name], config.environment.options
    parameters = inspect.signature(factory).parameters
    hints = get_type_hints(factory)
    for key, value in options.items():
        _check_option(name, key, value, parameters, hints.get(key))


def check_needed_options(config: Config) -> None:
    """Refuse to run without an option for which the environment has no default; a plan does without.

    Raises:
        SettingError: one is missing.
    """
    from megatron_trace.envs import registry

    environment = config.environment
    given = {"max_turns", *environment.options}
    for key, parameter in inspect.signature(
        registry.FACTORIES[environment.name]
    ).parameters.items():
        named = parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        if named and parameter.default is parameter.empty and key not in given:
            raise SettingError(
                f"environment.options.{key}", None, f"must be set: {environment.name} needs it"
            )


def _check_option(
    name: str, key: str, value: Any, parameters: Mapping[str, inspect.Parameter], kind: Any
) -> None:
    setting = f"environment.options.{key}"
    if key == "max_turns":
        raise SettingError(setting, value, "set environment.max_turns instead")
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    if key not in parameters and not takes_any:
        known = [known for known in parameters if known != "max_turns"]
        raise SettingError(setting, value, f"{name} has no such option; {_hint(key, known)}")
    if kind in (bool, int, float, str) and not _is_a(value, kind):
        raise SettingError(setting, value, f"must be of type {kind.__name__}")
    if isinstance(value, float) and not math.isfinite(value):
        raise SettingError(setting, value, "must be a finite number")
    if key in COUNTS.get(name, ()) and value < 1:
        raise SettingError(setting, value, "must be at least 1")


def _is_a(value: Any, kind: type) -> bool:
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def _hint(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else f"there is {', '.join(names)}"
