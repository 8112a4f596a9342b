"""`setting(...)`: a dataclass field with its meaning and bounds, and the check of all bounds."""

import dataclasses
import math
from collections.abc import Collection, Iterator
from enum import Enum
from typing import Any, get_args, get_type_hints

from megatron_trace.config.error import SettingError


@dataclasses.dataclass(frozen=True)
class Bounds:
    """What a value must satisfy. A bound that is None does not apply; `null` satisfies all.

    Attributes:
        above: the value must be greater.
        at_least: the value must not be less.
        below: the value must be less.
        at_most: the value must not be greater.
        one_of: the value, or every entry of a list, must be one of these.
        reason: what would go wrong otherwise; ends the error message.
    """

    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None
    one_of: Collection[str] = ()
    reason: str = ""

    def words(self) -> str:
        """The bounds as `--help` and errors show them, such as "above 0 and at most 1"."""
        limits = {
            "above": self.above,
            "at least": self.at_least,
            "below": self.below,
            "at most": self.at_most,
        }
        parts = [f"{name} {limit:g}" for name, limit in limits.items() if limit is not None]
        if self.one_of:
            parts.append("one of " + ", ".join(self.one_of))
        return " and ".join(parts)

    def admits(self, value: Any) -> bool:
        """Whether a value that is not None satisfies all bounds. NaN satisfies no limit."""
        if self.one_of:
            return value in self.one_of
        return (
            (self.above is None or value > self.above)
            and (self.at_least is None or value >= self.at_least)
            and (self.below is None or value < self.below)
            and (self.at_most is None or value <= self.at_most)
        )


def setting(
    default: Any,
    meaning: str,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
    one_of: Collection[str] = (),
    reason: str = "",
    files: bool = False,
    or_else: str = "",
    free: bool = False,
) -> Any:
    """A dataclass field with its meaning and its bounds.

    `--help` prints both, and `check_bounds` checks the bounds, which are those of `Bounds`.

    Args:
        files: the value is a pattern of files that must exist. It says where they are, not what
            they are: a continued run may find them elsewhere.
        or_else: name of another setting of the same class; where that is set, these files may be
            left out.
        free: an option of an environment that says where or how something is done, not what: a
            continued run may have another value.
    """
    bounds = Bounds(above, at_least, below, at_most, one_of, reason)
    metadata = {
        "meaning": meaning, "bounds": bounds, "files": files, "or_else": or_else, "free": free
    }  # fmt: skip
    if isinstance(default, (list, dict)):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class NamedSetting:
    """One setting of a dataclass that may hold other such dataclasses as sections.

    Attributes:
        name: dotted name.
        field: its field.
        value: its value in the given object; its default where a class was given.
        kind: its type; text where that is not defined.
    """

    name: str
    field: dataclasses.Field
    value: Any
    kind: Any

    @property
    def bounds(self) -> Bounds:
        """Its bounds."""
        return self.field.metadata.get("bounds", Bounds())

    @property
    def meaning(self) -> str:
        """What it does, in words."""
        return self.field.metadata.get("meaning", "")

    @property
    def files(self) -> bool:
        """Whether the value is a pattern of files that must exist; see `setting`."""
        return self.field.metadata.get("files", False)

    @property
    def or_else(self) -> str:
        """Dotted name of the setting that may stand for these files, or ""; see `setting`."""
        other = self.field.metadata.get("or_else", "")
        return other and self.name.removesuffix(self.field.name) + other

    @property
    def free(self) -> bool:
        """Whether a continued run may have another value; see `setting`."""
        return self.files or self.field.metadata.get("free", False)

    def type_words(self) -> str:
        """What a value must be, such as "of type int", or "one of bf16, fp8" for an enum."""
        kind = self.kind
        if not isinstance(kind, type):
            return "of type " + str(kind).replace("typing.", "")
        if issubclass(kind, Enum):
            return "one of " + ", ".join(choice.value for choice in kind)
        return f"of type {kind.__name__}"


def all_settings(settings: Any, prefix: str = "") -> Iterator[NamedSetting]:
    """Every setting of a dataclass, or of an instance of one, in the order of its fields.

    Args:
        settings: a dataclass whose fields are settings or nested sections.
        prefix: put before every name, such as `allocation.options.trace.`.
    """
    kinds = _kinds(settings if isinstance(settings, type) else type(settings))
    for field in dataclasses.fields(settings):
        name = prefix + field.name
        value = _value(settings, field)
        if dataclasses.is_dataclass(value):
            yield from all_settings(value, f"{name}.")
        else:
            yield NamedSetting(name, field, value, kinds.get(field.name, field.type))


def check_bounds(settings: Any, prefix: str = "") -> None:
    """Refuse numbers that are not finite, values outside their bounds, and texts of other bytes.

    Raises:
        SettingError: at the first such value.
    """
    for one in all_settings(settings, prefix):
        if isinstance(one.value, float) and not math.isfinite(one.value):
            raise SettingError(one.name, one.value, "must be a finite number")
        values = one.value if isinstance(one.value, list) else [one.value]
        _check_texts(one)
        for value in values:
            try:
                admitted = value is None or one.bounds.admits(value)
            except TypeError:
                remedy = "has bounds for numbers, and is no number"
                raise SettingError(one.name, value, remedy) from None
            if not admitted:
                raise SettingError(one.name, value, _remedy(one))


def _check_texts(one: NamedSetting) -> None:
    """Refuse texts that no path can have and no file can hold."""
    value = one.value
    texts = [*value, *value.values()] if isinstance(value, dict) else value
    for text in texts if isinstance(texts, list) else [texts]:
        if isinstance(text, str) and ("\0" in text or not _is_unicode(text)):
            remedy = "must be Unicode text without a zero character"
            raise SettingError(one.name, text, remedy)


def _is_unicode(text: str) -> bool:
    # Bytes of the command line that are no UTF-8 become lone surrogates.
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(value: Any) -> str:
    """A default as `--help` shows it."""
    return str(value.value if isinstance(value, Enum) else value)


def _remedy(one: NamedSetting) -> str:
    nullable = type(None) in get_args(one.kind)
    remedy = f"must be {one.bounds.words()}" + (", or null" if nullable else "")
    return f"{remedy}: {one.bounds.reason}" if one.bounds.reason else remedy


def _kinds(settings_class: type) -> dict[str, Any]:
    """The types of the fields; empty where one of them is not defined."""
    try:
        # With `from __future__ import annotations` a field's own type is text.
        return get_type_hints(settings_class)
    except NameError:
        return {}


def _value(settings: Any, field: dataclasses.Field) -> Any:
    if not isinstance(settings, type):
        return getattr(settings, field.name)
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default
