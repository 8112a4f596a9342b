"""A plug-in is found by its name or its file, and every mistake in it is one line."""

from pathlib import Path
from typing import Any

import pytest

from megatron_trace.config import SettingError
from megatron_trace.config.plugins import PluginKind, functions_called

KIND: PluginKind[Any] = PluginKind(
    word="estimator",
    setting="here.name",
    section="here.options",
    package="megatron_trace.learning.advantages",
    defines="a function `estimate`",
    definitions=functions_called("estimate"),
)
OPTIONS = """
from dataclasses import dataclass
from enum import Enum
from megatron_trace.config import setting

class Colour(Enum):
    red = "red"
    blue = "blue"

@dataclass
class Options:
    scale: float = setting(1.0, "a scale", above=0)
    colour: Colour = Colour.red
    plain: int = 3

def estimate(tree, settings, options):
    return options
"""
NEEDED = """
from __future__ import annotations
from dataclasses import dataclass

@dataclass
class Options:
    size: int

def estimate(): ...
"""


def write(folder: Path, text: str) -> str:
    file = folder / "mine.py"
    file.write_text(text)
    return str(file)


def test_every_file_of_the_folder_is_a_plugin() -> None:
    assert {"grpo", "gigpo", "trace"} <= set(KIND.names())


@pytest.mark.parametrize("name", KIND.names())
def test_every_file_of_the_folder_defines_what_it_must(name: str) -> None:
    KIND.find(name)
    KIND.options(name, {})


def test_a_file_is_a_plugin_with_typed_options(tmp_path: Path) -> None:
    file = write(tmp_path, OPTIONS)
    options = KIND.options(file, {"mine": {"scale": 2, "colour": "blue"}})
    assert (options.scale, options.colour.value, options.plain) == (2.0, "blue", 3)


def test_a_file_is_loaded_once_and_again_when_it_has_changed(tmp_path: Path) -> None:
    file = write(tmp_path, "def estimate(): return 1")
    assert KIND.find(file) is KIND.find(file)
    Path(file).write_text("def estimate(): return 2")
    assert KIND.find(file)() == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gigpoo", r"^here.name = 'gigpoo': no such estimator; did you mean gigpo\?$"),
        ("zzz", r"^here.name = 'zzz': no such estimator; there is at2po, .*treepo$"),
        ("nowhere.py", r"^here.name = 'nowhere.py': no such file$"),
    ],
)
def test_an_unknown_name_is_one_line(name: str, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        KIND.find(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", r"must define a function `estimate`; it defines 0$"),
        ("\n\nx = y", r"cannot be imported: line 3: NameError: name 'y' is not defined$"),
        ("x = 1\ny = (", r"cannot be imported: line 2: SyntaxError: '\(' was never closed"),
        ("import nosuchlibrary", r"cannot be imported: line 1: ModuleNotFoundError: No module"),
        ("def estimate(): ...\nclass Options: ...", "its Options must be a dataclass$"),
    ],
)
def test_a_file_that_is_no_plugin_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingError, match=f"^here.name = '.*mine.py': {message}") as error:
        KIND.options(write(tmp_path, text), {})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"scal": 2}, r"\.scal = 2: no such option; did you mean here.options.mine.scale\?$"),
        ({"scale": "x"}, r"\.scale = 'x': must be of type float$"),
        ({"scale": 0}, r"\.scale = 0.0: must be above 0$"),
        ({"scale": float("nan")}, r"\.scale = nan: must be a finite number$"),
        ({"colour": "green"}, r"\.colour = 'green': must be one of red, blue$"),
        (3, r" = 3: is a section; write here.options.mine.OPTION=value$"),
    ],
)
def test_a_wrong_option_is_one_line(tmp_path: Path, given: Any, message: str) -> None:
    with pytest.raises(SettingError, match=f"^here.options.mine{message}"):
        KIND.options(write(tmp_path, OPTIONS), {"mine": given})


def test_an_option_without_a_default_must_be_set(tmp_path: Path) -> None:
    file = write(tmp_path, NEEDED)
    with pytest.raises(SettingError, match=r"^here.options.mine.size = None: must be set$"):
        KIND.options(file, {})
    assert KIND.options(file, {"mine": {"size": 4}}).size == 4


def test_options_of_other_plugins_are_checked_too() -> None:
    with pytest.raises(SettingError, match=r"^here.options.gigpo.weight = -1.0: must be at least"):
        KIND.options("grpo", {"gigpo": {"weight": -1}})
    with pytest.raises(SettingError, match=r"^here.options.grpo.x = 1: no such option; there are"):
        KIND.options("grpo", {"grpo": {"x": 1}})
    with pytest.raises(SettingError, match=r"^here.options.gae = .*: no such estimator"):
        KIND.options("grpo", {"gae": {}})
