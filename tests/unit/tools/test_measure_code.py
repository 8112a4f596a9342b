"""What tools/measure_code.py counts, on sources small enough to count by hand."""

from pathlib import Path

import measure_code
import pytest

SOURCE = '''#!/usr/bin/env python
"""A module
of two docstring lines."""

# noqa: a pragma
LIMIT = 3  # beside code
"""What it limits."""


class Public:
    """Documented."""

    def method(self, value, *, exact: bool) -> int:
        # A comment that stands alone.
        return value

    def _hidden(self):
        pass


def outer(count: int) -> None:
    def inner() -> str:
        """Documented, but nobody outside sees it."""
        return """a text
# of two lines"""
'''


def measured(source: str) -> measure_code.Measures:
    found = measure_code.Measures()
    measure_code.measure(source, found)
    return found


def test_code_comment_and_docstring_lines_are_told_apart() -> None:
    found = measured(SOURCE)
    assert found.file_lines == [25]
    # LIMIT, class, method, return, _hidden, pass, outer, inner and a return of two lines.
    assert found.code_lines == 10
    assert found.comment_lines == 1
    assert found.docstring_lines == 5


@pytest.mark.parametrize(
    "source, nodes",
    [
        # The assignment, both names, the sum and the constant.
        ("a = b + 1\n", 5),
        ("def f(): pass\n", 2),
        # The statement, the comprehension, two elements; keywords and generators are no nodes.
        ("[x for x in y]\n", 5),
        ('"""text"""\n', 2),
    ],
)
def test_nodes_are_statements_and_expressions(source: str, nodes: int) -> None:
    assert measured(source).nodes == nodes


def test_density_is_nodes_per_code_line() -> None:
    assert measured("# why\na = b + 1\n\nc = 2\n").density == (5 + 3) / 2


def test_functions_in_functions_are_not_public() -> None:
    found = measured(SOURCE)
    # In order: Public, method, _hidden, outer, inner.
    assert found.documented == [True, False, False, False, True]
    assert found.documented_public == [True, False, False]


def test_what_a_private_class_holds_is_not_public() -> None:
    assert measured("class _A:\n    def b(self): pass\n").documented_public == []


def test_types_of_self_are_not_asked_for() -> None:
    found = measured(SOURCE)
    assert found.returns_typed == [True, False, True, True]
    assert found.arguments_typed == [False, True, True]


def test_function_lines_run_from_def_to_the_last_statement() -> None:
    assert measured(SOURCE).function_lines == [3, 2, 5, 4]


def test_names_are_those_of_definitions_arguments_and_variables() -> None:
    assert sorted(measured("def ab(self, cde):\n    f = cde.ghij\n").name_lengths) == [1, 2, 3]


def test_spread_is_median_90th_percentile_and_largest() -> None:
    assert measure_code.spread(list(range(1, 12))) == "6 / 10 / 11"
    assert measure_code.spread([]) == "-"


def test_each_lists_the_densest_file_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "airy.py").write_text("a = 1\n")
    (tmp_path / "dense.py").write_text("a = b(c(d(e)))\n")
    (tmp_path / "empty.py").write_text("")
    measure_code.main([str(tmp_path), "--each"])
    shown = capsys.readouterr().out
    assert shown.index("dense.py") < shown.index("airy.py")
    assert "empty.py" not in shown


def test_a_file_named_twice_is_counted_once(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("a = 1\n")
    assert measure_code.python_files([tmp_path, tmp_path / "one.py"]) == [tmp_path / "one.py"]


def test_no_python_file_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        measure_code.main([str(tmp_path)])
    assert "no Python file there" in capsys.readouterr().err
