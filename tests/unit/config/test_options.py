"""The options of a plug-in: every mistake is one line."""

from dataclasses import dataclass
from typing import Any

import pytest

from megatron_trace.config import SettingError, setting
from megatron_trace.config.options import read_options


@dataclass
class Options:
    """Some."""

    arguments: dict[str, Any] = setting({}, "a mapping")
    names: list[str] = setting([], "a list")
    count: int = setting(1, "a number", at_least=1)


def test_what_is_given_replaces_the_default() -> None:
    found = read_options(Options, {"arguments": {"a": [1]}, "names": ["b"]}, "x")
    assert found == Options({"a": [1]}, ["b"], 1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"arguments": [1]}, "x.arguments = [1]: must be a mapping"),
        ({"arguments": 1}, "x.arguments = 1: must be"),
        ({"names": {"a": 1}}, "x.names = {'a': 1}: must be"),
        ({"count": "many"}, "x.count = 'many': must be"),
        ({"count": 0}, "x.count = 0: must be at least 1"),
        ({"cuont": 2}, "x.cuont = 2: no such option"),
        ([], "x = []: is a section"),
    ],
)
def test_a_mistake_names_the_option_and_its_value(given: Any, message: str) -> None:
    with pytest.raises(SettingError) as caught:
        read_options(Options, given, "x")
    assert str(caught.value).startswith(message)
