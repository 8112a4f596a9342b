"""FILE.py:FUNCTION is found, and every mistake in it is one line."""

from pathlib import Path

import pytest

from megatron_trace.config import SettingError
from megatron_trace.config.functions import absolute_function, find_function

FILE = """
import json

def to_task(row):
    return {"question": row["problem"]}

def two(row, other): ...

NOT_A_FUNCTION = 3
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    return path


def test_a_function_of_a_file_is_found_and_called(file: Path) -> None:
    function = find_function("data.map", f"{file}:to_task", 1)
    assert function({"problem": "Why ?"}) == {"question": "Why ?"}
    assert (function.setting, function.path) == ("data.map", file)


def test_a_relative_file_is_found_where_the_program_runs(file: Path, monkeypatch) -> None:
    monkeypatch.chdir(file.parent)
    assert find_function("data.map", "mine.py:to_task", 1).path == file
    assert absolute_function("mine.py:to_task") == f"{file}:to_task"
    assert absolute_function("mine:to_task") == "mine:to_task"


def test_a_changed_file_is_read_again(file: Path) -> None:
    find_function("data.map", f"{file}:to_task", 1)
    file.write_text("def to_task(row): return 2")
    assert find_function("data.map", f"{file}:to_task", 1)({}) == 2


def test_what_it_raises_is_one_line_with_the_line_of_the_file(file: Path) -> None:
    with pytest.raises(ValueError, match=r"^data\.map fails: mine\.py: line 5: KeyError: 'prob"):
        find_function("data.map", f"{file}:to_task", 1)({"question": "Why ?"})
    file.write_text("import sys\ndef to_task(row):\n    sys.exit('no\\nmore')")
    with pytest.raises(ValueError, match=r"mine\.py: line 3: SystemExit: no more$"):
        find_function("data.map", f"{file}:to_task", 1)({})


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("", "must be FILE.py:FUNCTION"),
        ("mine.py", "must be FILE.py:FUNCTION"),
        ("{file}", "must be FILE.py:FUNCTION"),
        ("{file}:", "must be FILE.py:FUNCTION"),
        ("mine:to_task", "must be FILE.py:FUNCTION"),
        ("gone.py:to_task", "no such file: gone.py"),
        ("{file}:to_tusk", "no function to_tusk in the file; did you mean to_task?"),
        ("{file}:NOT_A_FUNCTION", "no function NOT_A_FUNCTION in the file; there is to_task, two"),
        ("{file}:two", "the function must take one argument"),
    ],
)
def test_what_cannot_be_found_is_one_line(file: Path, value: str, said: str) -> None:
    value = value.format(file=file)
    with pytest.raises(SettingError) as error:
        find_function("data.map", value, 1)
    assert str(error.value) == f"data.map = {value!r}: {said}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def to_task(row)", "line 1: SyntaxError"),
        ("import nothing_of_this_name", "line 1: ModuleNotFoundError"),
        ("\nraise SystemExit(3)", "line 2: SystemExit: 3"),
    ],
)
def test_a_file_that_cannot_be_imported_is_one_line(file: Path, text: str, said: str) -> None:
    file.write_text(text)
    with pytest.raises(SettingError, match=rf"mine\.py:to_task': cannot be imported: {said}"):
        find_function("data.map", f"{file}:to_task", 1)


def test_a_file_that_defines_no_function_says_so(file: Path) -> None:
    file.write_text("x = 1")
    with pytest.raises(SettingError, match="no function to_task in the file; the file defines non"):
        find_function("data.map", f"{file}:to_task", 1)
