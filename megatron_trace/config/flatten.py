"""Settings as one flat mapping, and where two such mappings differ."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from omegaconf import OmegaConf

from megatron_trace.config.settings import Config


@dataclass(frozen=True)
class Difference:
    """A setting that two mappings give different values."""

    name: str
    first: Any
    second: Any


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted names."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def flat_settings(config: Config) -> dict[str, Any]:
    """All settings by their dotted names, as plain data (an enum as its name)."""
    tree = OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)
    return flatten(cast(dict[str, Any], tree))


def differences(
    first: Mapping[str, Any], second: Mapping[str, Any], *, absent: str
) -> list[Difference]:
    """The settings whose values differ, sorted by name.

    Args:
        first, second: dotted names with their values.
        absent: stands in the result for the value of a setting that only one mapping has.
    """
    found = []
    for name in sorted(first.keys() | second.keys()):
        values = first.get(name, absent), second.get(name, absent)
        if values[0] != values[1]:
            found.append(Difference(name, *values))
    return found
