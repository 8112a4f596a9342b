"""From a YAML file and overrides to a `Config`; every mistake is one line."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, cast

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException
from yaml.constructor import ConstructorError

from megatron_trace.allocation import STRATEGIES
from megatron_trace.config import Config, SettingError, all_settings
from megatron_trace.config.error import one_line
from megatron_trace.config.flatten import flatten
from megatron_trace.config.functions import absolute_function
from megatron_trace.config.moved import ABSENT, given_value, plain_data, refuse_moved
from megatron_trace.config.setting import NamedSetting
from megatron_trace.config.sources import KINDS, all_sources
from megatron_trace.config.written import as_written, command_text, is_text, kind_of, read_texts
from megatron_trace.envs import ENVIRONMENTS
from megatron_trace.learning import ESTIMATORS

UNREADABLE = (yaml.YAMLError, ValueError, KeyError, AttributeError, TypeError, RecursionError)
"""What PyYAML raises at a document that it cannot read. A wrong `!!int` is a ValueError."""


@dataclass(frozen=True)
class Override:
    """`section.name=value` of the command line.

    Attributes:
        name: the dotted name.
        text: what stands after the equals sign.
        value: the text as YAML reads it; empty where YAML cannot.
        fault: why YAML cannot read the text; empty where it can.
    """

    name: str
    text: str
    value: Any
    fault: str

    def nested(self, value: Any) -> DictConfig:
        """`value` within the sections of the setting.

        Raises:
            OmegaConfBaseException: the name is none, or an interpolation is wrong.
        """
        layer = OmegaConf.create({})
        OmegaConf.update(layer, self.name, value)
        return layer


def load_config(file: str | None, overrides: Sequence[str] = ()) -> Config:
    """Defaults, then `file`, then `overrides`.

    Raises:
        SettingError: the file is missing or no YAML mapping, a key is unknown, or a value has the
            wrong type.
    """
    values, texts = ({}, {}) if file is None else _read(file)
    given = [_override(override) for override in overrides]
    kinds = _setting_kinds([values, *(plain_data(one.nested(one.value)) for one in given)])
    layers = [_file_layer(file, values, texts, kinds)]
    layers += [_override_layer(override, kinds) for override in given]
    return _merged(layers)


def _read(file: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The file's settings as YAML reads them, and their texts."""
    try:
        document = Path(file).read_text(encoding="utf-8-sig")
        texts = read_texts(document)
        # A document without content is an empty text.
        if not texts:
            return {}, {}
        if not isinstance(texts, dict):
            raise SettingError("--config", file, "must hold sections such as `run:`")
        return plain_data(cast(DictConfig, OmegaConf.create(document))), texts
    except SettingError:
        raise
    except OSError as error:
        remedy = f"cannot be read ({error.strerror}); name a YAML file"
        raise SettingError("--config", file, remedy) from None
    except UnicodeDecodeError:
        raise SettingError("--config", file, "is not UTF-8 text; save it as UTF-8") from None
    except OmegaConfBaseException as error:
        raise SettingError("--config", file, f"cannot be read: {one_line(error)}") from None
    except UNREADABLE as error:
        raise _no_yaml(file, error) from None


def _file_layer(
    file: str | None, values: dict[str, Any], texts: dict[str, Any], kinds: Mapping[str, Any]
) -> DictConfig:
    try:
        return OmegaConf.create(as_written(values, texts, kinds))
    except ValueError as error:
        raise _no_yaml(file, error) from None


def _no_yaml(file: str | None, error: Exception) -> SettingError:
    reason = one_line(error).replace(' in "<unicode string>",', " in")
    what = "cannot be read" if isinstance(error, ConstructorError) else "is not YAML"
    return SettingError("--config", file, f"{what}: {reason}")


def _override(override: str) -> Override:
    name, equals, text = override.partition("=")
    if not name or not equals:
        raise SettingError("override", override, "write it as section.name=value")
    value, fault = "", ""
    try:
        value = plain_data(OmegaConf.from_dotlist([f"value={text}"]))["value"]
    except OmegaConfBaseException as error:
        fault = f"cannot be read: {one_line(error)}"
    except UNREADABLE:
        fault = "is not YAML; close its brackets and quotes"
    try:
        dotted = next(iter(flatten(plain_data(Override(name, text, value, fault).nested("")))))
    except (OmegaConfBaseException, IndexError, *UNREADABLE):
        raise SettingError("override", override, "write it as section.name=value") from None
    return Override(dotted, text, value, fault)


def _override_layer(override: Override, kinds: Mapping[str, Any]) -> DictConfig:
    name, text = override.name, override.text
    kind = kind_of(name, kinds)
    try:
        # Without braces `a: b` is a text, though YAML takes it for a mapping.
        if is_text(kind, override.value if text.lstrip().startswith("{") else None):
            return override.nested(command_text(text, kind))
        if override.fault:
            raise SettingError(name, text, override.fault)
        return override.nested(as_written(override.value, read_texts(text), kinds, name))
    except OmegaConfBaseException as error:
        raise SettingError(name, text, f"cannot be read: {one_line(error)}") from None
    except SettingError:
        raise
    except UNREADABLE as error:
        # OmegaConf reads some texts that YAML alone does not, such as one with a tab.
        raise SettingError(name, text, one_line(error)) from None


def _setting_kinds(layers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Dotted name -> type of every setting, and of the options of each plug-in that has some."""
    kinds = {name: one.kind for name, one in _settings().items()} | KINDS
    for plugin_kind in (STRATEGIES, ESTIMATORS, ENVIRONMENTS):
        del kinds[plugin_kind.section]
        sections = [given_value(layer, plugin_kind.section) for layer in layers]
        named = {str(key) for section in sections if isinstance(section, dict) for key in section}
        chosen = [given_value(layer, plugin_kind.setting) for layer in layers]
        own_files = [name for name in chosen if str(name).endswith(".py")]
        for name in [*(named & set(plugin_kind.names())), *own_files[-1:]]:
            try:
                kinds |= {one.name: one.kind for one in plugin_kind.all_options(name)}
            except SettingError:
                # The check of plug-ins says what is wrong with it.
                continue
    return kinds


def _merged(layers: Sequence[DictConfig]) -> Config:
    merged = OmegaConf.structured(Config)
    for layer in layers:
        # Before merging: OmegaConf would call an old name unknown, or take a section for a value.
        refuse_moved(layer)
        _refuse_missing(layer)
        try:
            merged = OmegaConf.merge(merged, layer)
        except OmegaConfBaseException as error:
            _explain(error, layer)
        except TypeError:
            _explain_container(layer)
            raise
    try:
        config = cast(Config, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        name = error.full_key or "settings"
        raise SettingError(
            name, flatten(plain_data(merged)).get(name), f"has no value: {one_line(error)}"
        ) from None
    all_sources(config.data)
    # Workers import the environment's file, and Ray may have started them in another folder.
    if config.environment.name.endswith(".py"):
        config.environment.name = str(Path(config.environment.name).absolute())
    if config.data.map:
        config.data.map = absolute_function(config.data.map)
    for given in [*_entries(config.data.train), *_entries(config.data.heldout)]:
        if isinstance(given, dict) and given.get("map"):
            given["map"] = absolute_function(given["map"])
    return config


def _entries(sources: Any) -> list[Any]:
    return list(sources.values()) if isinstance(sources, dict) else []


def _refuse_missing(layer: DictConfig) -> None:
    """Refuse `???`, OmegaConf's mark of a missing value: merging keeps the default without it."""
    for name, value in flatten(plain_data(layer)).items():
        if value == "???":
            raise SettingError(name, value, "must be set")


def _explain_container(layer: DictConfig) -> None:
    """Refuse a list where a setting is a mapping, or a mapping where it is a list."""
    layer_data = plain_data(layer)
    for name, one in _settings().items():
        given = given_value(layer_data, name)
        wrong = list if isinstance(one.value, dict) else dict
        if isinstance(one.value, dict | list) and isinstance(given, wrong):
            raise SettingError(name, given, f"must be {one.type_words()}") from None


def _explain(error: OmegaConfBaseException, layer: DictConfig) -> NoReturn:
    """Raise OmegaConf's error as one line about the setting that `layer` gave."""
    layer_data = plain_data(layer)
    for section in _sections():
        given = given_value(layer_data, section)
        if given is not ABSENT and not isinstance(given, dict):
            remedy = f"is a section; write {section}.name=value"
            raise SettingError(section, given, remedy) from None
    known = _settings()
    name = error.full_key or ""
    value = OmegaConf.select(layer, name, throw_on_resolution_failure=False) if name else None
    holder = name.partition("[")[0] if "[" in name else name.rpartition(".")[0]
    if holder in known and not isinstance(error, ConfigKeyError):
        raise SettingError(name, value, f"{holder} must be {known[holder].type_words()}") from None
    # OmegaConf names the unknown section; the user looks for the first key below.
    value = plain_data(value) if isinstance(value, DictConfig) else value
    while isinstance(value, dict) and value and name not in known:
        key = next(iter(value))
        name, value = f"{name}.{key}", value[key]
    if isinstance(error, ConfigKeyError) or name not in known:
        close = _closest(name, list(known))
        remedy = (
            f"no such setting; did you mean {close}?" if close else "no such setting; see --help"
        )
        raise SettingError(name, value, remedy) from None
    raise SettingError(name, value, f"must be {known[name].type_words()}") from None


def _closest(name: str, known: Sequence[str]) -> str | None:
    """The known setting that a user most likely meant: by its whole name, or by its last part."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    last = name.rpartition(".")[2]
    # A setting may have been looked for in the wrong section, `learning.clip_hihg`. Then whole
    # names are far apart, and only the last part says what was meant.
    by_last = {known_name.rpartition(".")[2]: known_name for known_name in reversed(known)}
    same = difflib.get_close_matches(last, list(by_last), n=1, cutoff=0.8)
    if same and not close:
        return by_last[same[0]]
    if same and difflib.SequenceMatcher(None, last, close[0].rpartition(".")[2]).ratio() < 0.8:
        return by_last[same[0]]
    return close[0] if close else None


def _settings() -> dict[str, NamedSetting]:
    """Every setting by its dotted name."""
    return {one.name: one for one in all_settings(Config())}


def _sections() -> list[str]:
    """Dotted names of all sections, outer ones first."""
    names = {name.rpartition(".")[0] for name in _settings()}
    outer = {name.partition(".")[0] for name in names}
    return sorted(names | outer, key=lambda name: (name.count("."), name))
