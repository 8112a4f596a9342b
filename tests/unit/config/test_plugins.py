"""A plug-in is found by its name or its file, and every mistake in it is one line."""

from pathlib import Path
from typing import Any

import pytest

from megatron_trace.allocation import STRATEGIES, make_strategy
from megatron_trace.config import AdvantageConfig, AllocationConfig, SettingError
from megatron_trace.config.plugins import PluginKind, functions_called
from megatron_trace.envs import ENVIRONMENTS
from megatron_trace.learning import ESTIMATORS
from megatron_trace.learning.estimator import make_estimator

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


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("x: int = setting('abc', 'x')", "x: Value 'abc' of type 'str' could not be converted"),
        ("x: int = setting(-5, 'x', at_least=1)", "x = -5: must be at least 1$"),
        ("x: str = setting('abc', 'x', at_least=1)", "x = 'abc': has bounds for numbers"),
        ("x: 'Undefined' = 3", "name 'Undefined' is not defined$"),
        ("x: object = None", "x: Unexpected type annotation: object$"),
    ],
)
def test_a_files_wrong_default_is_the_files_fault(tmp_path: Path, body: str, message: str) -> None:
    text = OPTIONS.replace("plain: int = 3", body)
    with pytest.raises(
        SettingError, match=f"mine.py': its Options cannot work: {message}"
    ) as error:
        KIND.options(write(tmp_path, text), {})
    assert "\n" not in str(error.value)


def test_values_that_the_files_own_check_refuses_are_one_line(tmp_path: Path) -> None:
    check = (
        "\n    def __post_init__(self):\n        if self.size > 4: raise ValueError('too big')\n"
    )
    file = write(tmp_path, NEEDED.replace("size: int\n", "size: int\n" + check))
    with pytest.raises(
        SettingError, match=r"mine.py': its Options refuse \{'size': 9\}: line 10: .*: too big$"
    ):
        KIND.options(file, {"mine": {"size": 9}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import sys\nsys.exit('bye')", "cannot be imported: line 2: SystemExit: bye$"),
        ("x\0y", "cannot be imported: SyntaxError: source code string cannot contain null bytes$"),
    ],
)
def test_a_file_that_ends_or_has_no_line_is_one_line(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(SettingError, match=message):
        KIND.find(write(tmp_path, text))


@pytest.mark.parametrize("stem", ["a.b", "grpo"])
def test_a_file_whose_options_would_have_no_clear_name_is_refused(
    tmp_path: Path, stem: str
) -> None:
    file = tmp_path / f"{stem}.py"
    file.write_text(OPTIONS)
    with pytest.raises(
        SettingError, match=f"rename the file: '{stem}' has a dot, or is a built-in"
    ):
        KIND.find(str(file))


def test_options_of_a_file_that_is_not_chosen_are_refused_with_the_reason() -> None:
    message = r"; options of a FILE.py can be given only where here.name is that file$"
    with pytest.raises(SettingError, match=message):
        KIND.options("grpo", {"mine": {"scale": 1}})


STRATEGY = "from megatron_trace.allocation import Strategy\nclass Mine(Strategy):\n    "
ENVIRONMENT = "from megatron_trace.envs import Environment\nclass Mine(Environment):\n    "
METHODS = """
    def reset(self, task): ...
    def step(self, action): ...
    def snapshot(self): ...
    def restore(self, snapshot): ...
"""
WITH_OPTIONS = OPTIONS.partition("def estimate")[0]


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (STRATEGIES, STRATEGY + "pass", "its class must define plan"),
        (
            ENVIRONMENTS,
            ENVIRONMENT + "pass",
            "its class must define reset, step, snapshot, restore",
        ),
        (
            ENVIRONMENTS,
            ENVIRONMENT + "def __init__(self): ..." + METHODS,
            r"its constructor must be `__init__\(self, options, max_turns, shared\)`",
        ),
        (ESTIMATORS, "def estimate(tree, settings, options): ...", "without Options, write"),
        (ESTIMATORS, WITH_OPTIONS + "def estimate(tree, settings): ...", "with Options, write"),
    ],
)
def test_a_plugin_that_cannot_work_is_refused_at_the_door(
    tmp_path: Path, kind: PluginKind[Any], text: str, message: str
) -> None:
    with pytest.raises(SettingError, match=rf"^{kind.setting} = '.*mine.py': {message}"):
        kind.options(write(tmp_path, text), {})


def test_an_error_in_a_strategys_constructor_is_one_line(tmp_path: Path) -> None:
    text = STRATEGY + "def __init__(self, settings): ...\n    def plan(self, view): ..."
    with pytest.raises(SettingError, match=r"mine.py': cannot be made: TypeError: .*__init__\(\)"):
        make_strategy(AllocationConfig(strategy=write(tmp_path, text)))


def test_an_empty_name_of_an_estimator_is_refused() -> None:
    with pytest.raises(SettingError, match=r"learning.advantage.name = '': no such estimator"):
        make_estimator(AdvantageConfig(name=""))


def test_annotations_that_are_text_are_read_as_types(tmp_path: Path) -> None:
    option = "size: int | None = setting(None, 'a size', at_least=1)"
    text = NEEDED.replace("size: int\n", option + "\n")
    text = text.replace(
        "import dataclass\n", "import dataclass\nfrom megatron_trace.config import setting\n"
    )
    file = write(tmp_path, text)
    with pytest.raises(SettingError, match=r"size = 0: must be at least 1, or null$"):
        KIND.options(file, {"mine": {"size": 0}})
