"""Settings as they were written: a text stays the text, whatever YAML would take it for.

YAML reads the name `0123` as 83, `1e999` as infinity, `no` as false and `1:30` as 90. Only the type
of the setting says what was meant. So every value is converted from its text, by that type.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import Any, ClassVar, Union, get_args, get_origin, get_type_hints

import yaml
from yaml.constructor import ConstructorError

NULLS = ("", "~", "null", "Null", "NULL")
"""What YAML takes for null, where it is not in quotes."""

NULL_KEY = "found the key null; if it is a name, put it in quotes,"

MERGE = "tag:yaml.org,2002:merge"
"""YAML's tag of the key `<<`, which copies another mapping."""


class _TextLoader(yaml.SafeLoader):
    """Reads every scalar as its text, unless it has a tag such as `!!int`."""

    yaml_implicit_resolvers: ClassVar = {"<": [(MERGE, re.compile("<<"))]}

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """A mapping; a key that YAML takes for null is refused."""
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and not key.style and key.value in NULLS:
                raise ConstructorError(None, None, NULL_KEY, key.start_mark)
        return super().construct_mapping(node, deep)


def read_texts(document: str) -> Any:
    """The data of a YAML document with the text of every scalar.

    Raises:
        yaml.YAMLError: it is not YAML.
    """
    return yaml.load(document, Loader=_TextLoader)


def as_written(value: Any, text: Any, kinds: Mapping[str, Any], name: str = "") -> Any:
    """`value` with the text of every scalar whose setting has a type that tells what it is.

    Args:
        value: data as YAML reads them.
        text: the same data from `read_texts`.
        kinds: dotted name -> type of every known setting.
        name: dotted name of `value`; empty for all settings.

    Raises:
        ValueError: two keys of a mapping are the same text.
    """
    kind = kind_of(name, kinds)
    if kind is not None:
        return _typed(value, text, kind)
    if not isinstance(value, dict):
        return value
    prefix = f"{name}." if name else ""
    return {
        key: as_written(part, own, kinds, f"{prefix}{key}")
        for key, part, own in _entries(value, text)
    }


def command_text(text: str, kind: Any) -> str | None:
    """The value of a text setting that was typed on the command line.

    It needs no YAML: only quotes around the whole are taken off, and null is null where the setting
    may be null.
    """
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    if not quoted and not (_nullable(kind) and text in ("", "~", "null")):
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def kind_of(name: str, kinds: Mapping[str, Any]) -> Any:
    """The type of a setting, or of what is within a setting that is a mapping; None: unknown."""
    if name in kinds:
        return kinds[name]
    for known, kind in kinds.items():
        if name.startswith(f"{known}."):
            return _kind_within(kind, name.removeprefix(f"{known}.").split("."))
    return None


def _kind_within(kind: Any, keys: Sequence[str]) -> Any:
    for key in keys:
        of_mapping = _of_mapping(kind)
        if get_origin(of_mapping) is dict:
            kind = get_args(of_mapping)[1]
        else:
            kind = get_type_hints(of_mapping).get(key) if of_mapping is not None else None
    return kind


def is_text(kind: Any, value: Any = None) -> bool:
    """Whether the values of a type are texts: strings, or names to choose from.

    Args:
        value: what YAML reads; where a type takes texts and mappings, it says which one is meant.
    """
    kind = _without_null(kind)
    if get_origin(kind) is UnionType:
        # YAML takes the braces of `{a,b}` for a mapping without values.
        return not (isinstance(value, dict) and any(one is not None for one in value.values()))
    return isinstance(kind, type) and issubclass(kind, str | Enum)


def _typed(value: Any, text: Any, kind: Any) -> Any:
    if value is None and _nullable(kind):
        return None
    kind = _without_null(kind)
    of_mapping = _of_mapping(kind)
    if of_mapping is not None and isinstance(value, dict):
        return {
            key: _typed(part, own, _kind_within(of_mapping, [key]))
            for key, part, own in _entries(value, text)
        }
    if get_origin(kind) is list and isinstance(value, list):
        return [_typed(*pair, get_args(kind)[0]) for pair in zip(value, text, strict=True)]
    # What has no single type, a tag or the wrong shape is left to OmegaConf.
    if not isinstance(text, str):
        return value
    if is_text(kind, value):
        return text
    # OmegaConf takes every whole number but 0 for true. It refuses other numbers.
    if kind is bool and text.lstrip("+-").isdigit() and int(text) not in (0, 1):
        return float(text)
    if kind not in (int, float):
        return value
    try:
        return kind(text)
    except ValueError:
        # Only YAML knows `.inf` and `.nan`; the check of bounds refuses them.
        return value if value != value or value in (math.inf, -math.inf) else text


def _entries(value: dict[Any, Any], text: dict[Any, Any]) -> Iterator[tuple[Any, Any, Any]]:
    """For every entry of a mapping: the key's text, the value, and the value's text."""
    if len(value) != len(text):
        raise ValueError(f"two of the keys {', '.join(map(str, value))} are the same text")
    for part, (key, own) in zip(value.values(), text.items(), strict=True):
        yield key, part, own


def _of_mapping(kind: Any) -> Any:
    """The one of a type's alternatives that a mapping has, such as dict[str, int]; None: none."""
    for one in get_args(kind) if get_origin(kind) in (Union, UnionType) else [kind]:
        if get_origin(one) is dict or is_dataclass(one):
            return one
    return None


def _nullable(kind: Any) -> bool:
    return get_origin(kind) in (Union, UnionType) and NoneType in get_args(kind)


def _without_null(kind: Any) -> Any:
    """`X` of `X | None`; any other type as it is."""
    others = [one for one in get_args(kind) if one is not NoneType]
    return others[0] if _nullable(kind) and len(others) == 1 else kind
