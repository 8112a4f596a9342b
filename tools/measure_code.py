"""Measure the size, density and documentation of Python code, so that two states of a repository
can be compared.

    python tools/measure_code.py megatron_trace tools pretrain_trace.py

code line: holds a token that is neither a comment nor part of a docstring.
comment line: holds a comment and nothing else. Pragmas such as `# noqa` do not count.
docstring: any string that stands as a statement, also one below a constant.
syntax nodes: the statements and expressions of Python's `ast`.
public: a module's or public class's functions and classes whose names have no leading underscore.
"""

import argparse
import ast
import io
import statistics
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

LAYOUT_TOKENS = {
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}
PRAGMAS = ("#!", "# fmt:", "# mypy:", "# noqa", "# ruff:", "# type:")
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass
class Measures:
    """What was counted in some files; the lists have one entry for each file, function, argument or
    name.
    """

    file_lines: list[int] = field(default_factory=list)
    function_lines: list[int] = field(default_factory=list)
    documented: list[bool] = field(default_factory=list)
    documented_public: list[bool] = field(default_factory=list)
    returns_typed: list[bool] = field(default_factory=list)
    arguments_typed: list[bool] = field(default_factory=list)
    name_lengths: list[int] = field(default_factory=list)
    code_lines: int = 0
    comment_lines: int = 0
    docstring_lines: int = 0
    nodes: int = 0

    @property
    def density(self) -> float:
        """Syntax nodes per code line."""
        return self.nodes / max(self.code_lines, 1)


def python_files(paths: Sequence[Path]) -> list[Path]:
    """The Python files below `paths`, sorted, without repetitions."""
    found: set[Path] = set()
    for path in paths:
        found.update([path] if path.is_file() else path.rglob("*.py"))
    return sorted(found)


def measure(source: str, into: Measures) -> None:
    """Add one file's counts to `into`.

    Raises:
        SyntaxError: `source` is not Python.
    """
    tree = ast.parse(source)
    into.file_lines.append(len(source.splitlines()))
    count_lines(source, docstring_lines(tree), into)
    for node in ast.walk(tree):
        into.nodes += isinstance(node, (ast.stmt, ast.expr))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            into.name_lengths.append(len(node.id))
    for definition, public in definitions(tree):
        count_definition(definition, public, into)


def docstring_lines(tree: ast.Module) -> set[int]:
    """Numbers of the lines that a docstring covers."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and is_text(node.value):
            lines.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return lines


def is_text(node: ast.expr) -> bool:
    """Whether an expression is a plain string."""
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def count_lines(source: str, docstrings: set[int], into: Measures) -> None:
    """Count code, comment and docstring lines."""
    # A line may hold both: a comment beside code makes no comment line, so the lines are sets.
    code: set[int] = set()
    comments: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            if not token.string.startswith(PRAGMAS):
                comments.add(token.start[0])
        elif token.type not in LAYOUT_TOKENS:
            code.update(range(token.start[0], token.end[0] + 1))
    into.code_lines += len(code - docstrings)
    into.comment_lines += len(comments - code)
    into.docstring_lines += len(docstrings)


def definitions(scope: ast.AST, public: bool = True) -> Iterator[tuple[Definition, bool]]:
    """Every function and class in `scope`, and whether it is public."""
    for node in ast.iter_child_nodes(scope):
        if isinstance(node, Definition):
            visible = public and not node.name.startswith("_")
            yield node, visible
            # What a function defines cannot be reached from outside.
            yield from definitions(node, visible and isinstance(node, ast.ClassDef))
        else:
            yield from definitions(node, public)


def count_definition(node: Definition, public: bool, into: Measures) -> None:
    """Count the docstring, types and names of a function or class."""
    has_docstring = ast.get_docstring(node) is not None
    into.documented.append(has_docstring)
    if public:
        into.documented_public.append(has_docstring)
    into.name_lengths.append(len(node.name))
    if isinstance(node, ast.ClassDef):
        return
    into.function_lines.append((node.end_lineno or node.lineno) - node.lineno + 1)
    into.returns_typed.append(node.returns is not None)
    for argument in node.args.posonlyargs + node.args.args + node.args.kwonlyargs:
        if argument.arg not in ("self", "cls"):
            into.arguments_typed.append(argument.annotation is not None)
            into.name_lengths.append(len(argument.arg))


def spread(values: Sequence[int]) -> str:
    """Median, 90th percentile and largest."""
    if not values:
        return "-"
    ordered = sorted(values)
    ninetieth = ordered[round(0.9 * (len(ordered) - 1))]
    return f"{statistics.median(ordered):.0f} / {ninetieth} / {ordered[-1]}"


def share(part: int, whole: int) -> str:
    """A percentage; "-" where `whole` is 0."""
    return f"{100 * part / whole:.1f} %" if whole else "-"


def share_of(flags: Sequence[bool]) -> str:
    """The percentage that is true."""
    return share(sum(flags), len(flags))


def rows(found: Measures) -> dict[str, str]:
    """The measures, by name."""
    lines = sum(found.file_lines)
    names = found.name_lengths
    return {
        "files, lines": f"{len(found.file_lines)}, {lines}",
        "file: median / p90 / longest": spread(found.file_lines),
        "files over 300 lines": str(sum(size > 300 for size in found.file_lines)),
        "function: median / p90 / longest": spread(found.function_lines),
        "functions over 50 lines": str(sum(size > 50 for size in found.function_lines)),
        "docstrings: all": share_of(found.documented),
        "docstrings: public": share_of(found.documented_public),
        "return types": share_of(found.returns_typed),
        "argument types": share_of(found.arguments_typed),
        "docstring lines": share(found.docstring_lines, lines),
        "comment lines": share(found.comment_lines, lines),
        "syntax nodes per code line": f"{found.density:.2f}",
        "mean length of a name": f"{statistics.mean(names):.1f}" if names else "-",
    }


def print_each(measured: dict[Path, Measures]) -> None:
    """One line for each file with code, the densest first."""
    print("nodes/line  comments  lines  file")
    with_code = {file: found for file, found in measured.items() if found.code_lines}
    for file in sorted(with_code, key=lambda file: -with_code[file].density):
        found = with_code[file]
        (lines,) = found.file_lines
        print(f"{found.density:10.2f} {found.comment_lines:9d} {lines:6d}  {file}")


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="+", type=Path, help="files and folders")
    parser.add_argument("--each", action="store_true", help="also print every file's density")
    options = parser.parse_args(argv)
    total = Measures()
    measured: dict[Path, Measures] = {}
    for file in python_files(options.paths):
        source = file.read_text(encoding="utf-8")
        measured[file] = Measures()
        measure(source, measured[file])
        measure(source, total)
    if not total.file_lines:
        parser.error("no Python file there")
    if options.each:
        print_each(measured)
    table = Table("measure", "value")
    for name, value in rows(total).items():
        table.add_row(name, value)
    Console().print(table)


if __name__ == "__main__":
    main()
