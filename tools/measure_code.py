"""Measure the size, density and documentation of Python code, so that two states of a repository can be compared.

python tools/measure_code.py megatron_trace tools pretrain_trace.py

A *code line* holds at least one token that is neither a comment nor part of a docstring. A *comment line* holds a
comment and nothing else; tool pragmas (`# fmt:`, `# noqa`, `# type:`) do not count. *Syntax nodes* are the
statements and expressions of Python's `ast`.
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
PRAGMAS = ("# fmt:", "# noqa", "# type:")
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass
class Measures:
    """What was counted in some files; the lists have one entry for each file, function or name."""

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


def python_files(paths: Sequence[Path]) -> Iterator[Path]:
    """The Python files below `paths`, each once, sorted."""
    found = {file for path in paths for file in ([path] if path.is_file() else path.rglob("*.py"))}
    yield from sorted(found)


def measure(source: str, into: Measures) -> None:
    """Add one file's counts.

    Raises:
        SyntaxError: it is not Python.
    """
    tree = ast.parse(source)
    docstrings = docstring_lines(tree)
    into.file_lines.append(len(source.splitlines()))
    into.docstring_lines += len(docstrings)
    count_lines(source, docstrings, into)
    for node in ast.walk(tree):
        if isinstance(node, (ast.stmt, ast.expr)):
            into.nodes += 1
        count_definition(node, into)


def docstring_of(node: ast.AST) -> ast.Expr | None:
    """The statement that documents a module, class, function, or the name assigned just before it."""
    body = getattr(node, "body", None)
    if not isinstance(node, DOCUMENTED) or not body:
        return None
    first = body[0]
    return first if isinstance(first, ast.Expr) and is_text(first.value) else None


def is_text(node: ast.expr) -> bool:
    """Whether an expression is a plain string."""
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def docstring_lines(tree: ast.Module) -> set[int]:
    """Line numbers of every string that stands as a statement: docstrings, and those below constants."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and is_text(node.value):
            lines.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return lines


def count_lines(source: str, docstrings: set[int], into: Measures) -> None:
    """Count code and comment lines."""
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


def count_definition(node: ast.AST, into: Measures) -> None:
    """Count what a function, class or name adds."""
    if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
        has = docstring_of(node) is not None
        into.documented.append(has)
        if not node.name.startswith("_"):
            into.documented_public.append(has)
        into.name_lengths.append(len(node.name))
    if isinstance(node, FUNCTIONS):
        into.function_lines.append((node.end_lineno or node.lineno) - node.lineno + 1)
        into.returns_typed.append(node.returns is not None)
        arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
        for argument in arguments:
            if argument.arg not in ("self", "cls"):
                into.arguments_typed.append(argument.annotation is not None)
                into.name_lengths.append(len(argument.arg))
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        into.name_lengths.append(len(node.id))


def spread(values: Sequence[int]) -> str:
    """Median, 90th percentile and largest."""
    ordered = sorted(values)
    ninetieth = ordered[min(len(ordered) - 1, round(0.9 * (len(ordered) - 1)))]
    return f"{statistics.median(ordered):.0f} / {ninetieth} / {ordered[-1]}"


def share(part: float, whole: float) -> str:
    """A percentage; "-" of nothing."""
    return f"{100 * part / whole:.1f} %" if whole else "-"


def table(found: Measures) -> Table:
    """The measures for people."""
    shown = Table("measure", "value")
    lines = sum(found.file_lines)
    rows = {
        "files, lines": f"{len(found.file_lines)}, {lines}",
        "file: median / p90 / longest": spread(found.file_lines),
        "files over 300 lines": str(sum(size > 300 for size in found.file_lines)),
        "function: median / p90 / longest": spread(found.function_lines),
        "functions over 50 lines": str(sum(size > 50 for size in found.function_lines)),
        "docstrings: all": share(sum(found.documented), len(found.documented)),
        "docstrings: public": share(sum(found.documented_public), len(found.documented_public)),
        "return types": share(sum(found.returns_typed), len(found.returns_typed)),
        "argument types": share(sum(found.arguments_typed), len(found.arguments_typed)),
        "docstring lines": share(found.docstring_lines, lines),
        "comment lines": share(found.comment_lines, lines),
        "syntax nodes per code line": f"{found.nodes / max(found.code_lines, 1):.2f}",
        "mean length of a name": f"{statistics.mean(found.name_lengths):.1f}",
    }
    for name, value in rows.items():
        shown.add_row(name, value)
    return shown


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("paths", nargs="+", type=Path, help="files and folders")
    parser.add_argument(
        "--each", action="store_true", help="also print density and comments of every file"
    )
    options = parser.parse_args()
    total = Measures()
    for file in python_files(options.paths):
        one = Measures()
        source = file.read_text(encoding="utf-8")
        measure(source, one)
        measure(source, total)
        if options.each and one.code_lines:
            density = one.nodes / one.code_lines
            print(f"{density:5.2f} {one.comment_lines:4d} {one.file_lines[0]:4d} {file}")
    if not total.file_lines:
        parser.error("no Python file there")
    Console().print(table(total))


if __name__ == "__main__":
    main()
