"""Bounds stand beside their settings: no number outside them, and none that is not finite, reaches
a run.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import pytest

from megatron_trace.config import Config, SettingError, all_settings, check_bounds, setting

FLOATS = [one for one in all_settings(Config()) if "float" in str(one.field.type)]
BOUNDED = [one for one in all_settings(Config()) if one.bounds.words()]


@dataclass
class Inner:
    share: float = setting(0.5, "a share", above=0, at_most=1)


@dataclass
class Outer:
    count: int | None = setting(None, "a count", at_least=1, reason="0 would do nothing")
    kinds: list[str] = setting(["a"], "some kinds", one_of=("a", "b"))
    inner: Inner = field(default_factory=Inner)


def changed(name: str, value: Any) -> Config:
    config: Any = Config()
    *sections, last = name.split(".")
    holder = config
    for section in sections:
        holder = getattr(holder, section)
    setattr(holder, last, value)
    return config


def test_the_defaults_are_within_their_bounds() -> None:
    check_bounds(Config())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", [one.name for one in FLOATS])
def test_no_setting_is_infinite_or_no_number(name: str, value: float) -> None:
    with pytest.raises(SettingError, match=rf"{name} = {value}: must be a finite number"):
        check_bounds(changed(name, value))


@pytest.mark.parametrize("one", BOUNDED, ids=[one.name for one in BOUNDED])
def test_just_outside_a_bound_is_refused(one: Any) -> None:
    bounds = one.bounds
    step = 1 if "int" in str(one.field.type) else 1e-6
    outside = [
        *([bounds.above] if bounds.above is not None else []),
        *([bounds.at_least - step] if bounds.at_least is not None else []),
        *([bounds.below] if bounds.below is not None else []),
        *([bounds.at_most + step] if bounds.at_most is not None else []),
        *(["no such name"] if bounds.one_of else []),
    ]
    for value in outside:
        with pytest.raises(SettingError, match=f"^{one.name} = .*: must be "):
            check_bounds(changed(one.name, value))


def test_null_needs_no_bound() -> None:
    check_bounds(Outer(count=None))


def test_the_error_says_the_bound_null_and_the_reason() -> None:
    with pytest.raises(SettingError) as error:
        check_bounds(Outer(count=0), "here.")
    assert str(error.value) == "here.count = 0: must be at least 1, or null: 0 would do nothing"


def test_every_entry_of_a_list_is_checked() -> None:
    with pytest.raises(SettingError, match=r"^kinds = 'c': must be one of a, b$"):
        check_bounds(Outer(kinds=["a", "c"]))


def test_a_nested_section_is_named_with_its_path() -> None:
    with pytest.raises(SettingError, match=r"^inner.share = 1.5: must be above 0 and at most 1$"):
        check_bounds(Outer(inner=Inner(1.5)))


def test_a_class_is_listed_with_its_defaults() -> None:
    names = {one.name: one.value for one in all_settings(Outer, "options.")}
    assert names == {"options.count": None, "options.kinds": ["a"], "options.inner.share": 0.5}
