"""The options of a plug-in, read from plain data; every mistake is one line."""

from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

from megatron_trace.config.error import SettingError, did_you_mean, one_line
from megatron_trace.config.setting import all_settings, check_bounds


def check_options_class(options_class: type) -> None:
    """Refuse fields of a type that no option can have, and defaults that are wrong.

    Raises:
        ValueError: OmegaConf refuses a type or a default.
        SettingError: a default is out of its bounds.
        NameError: an annotation is not defined.
    """
    try:
        OmegaConf.structured(options_class)
    except OmegaConfBaseException as error:
        raise ValueError(f"{error.full_key or error.key}: {one_line(error)}") from error
    check_bounds(options_class)


def read_options(options_class: type, given: Any, section: str) -> Any:
    """An instance of the dataclass `options_class` with the given values.

    Args:
        given: option -> value.
        section: dotted name of the section that gives them, such as "allocation.options.trace".

    Raises:
        SettingError: an option is unknown, missing, of the wrong type or out of bounds.
    """
    if not isinstance(given, Mapping):
        raise SettingError(section, given, f"is a section; write {section}.OPTION=value")
    try:
        merged: Any = OmegaConf.structured(options_class)
        for option, value in given.items():
            merged = _merged(merged, str(option), value, f"{section}.{option}")
        options = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise _explained(error, options_class, given, section) from None
    check_bounds(options, f"{section}.")
    return options


def _merged(options: Any, option: str, value: Any, name: str) -> Any:
    try:
        return OmegaConf.merge(options, {option: value})
    # A list in place of a mapping, which is the one mistake that has no error of OmegaConf's own.
    except TypeError:
        raise SettingError(name, value, "must be a mapping; write {NAME: VALUE}") from None


def _explained(
    error: OmegaConfBaseException, options_class: type, given: Mapping[str, Any], section: str
) -> SettingError:
    """OmegaConf's error as one line about the option."""
    option = str(error.full_key or error.key)
    name, value = f"{section}.{option}", given.get(option)
    if isinstance(error, MissingMandatoryValue):
        return SettingError(name, None, "must be set")
    # OmegaConf says neither which section an option is in nor what would be right.
    known = {one.name: one for one in all_settings(options_class)}
    if option in known and not isinstance(error, ConfigKeyError):
        return SettingError(name, value, f"must be {known[option].type_words()}")
    if not known:
        return SettingError(name, value, "no such option; there are none")
    full_names = [f"{section}.{one}" for one in known]
    return SettingError(name, value, f"no such option; {did_you_mean(name, full_names)}")
