"""The comparison as a table in the terminal."""

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from megatron_trace.compare.summary import MEASURES, Line, Measure
from megatron_trace.compare.words import bounds, mean_text, p_text, written
from megatron_trace.report.words import counted

WORDS = 9
"""Letters after which the head of a column is broken."""


def table(
    lines: Sequence[Line],
    shown: Sequence[Measure] = MEASURES,
    *,
    tests: bool = True,
    title: str = "",
) -> Table:
    """A row for each line: means, their intervals below, and the test of success against the baseline."""
    columns = present(lines, shown)
    tested = tests and any("success" in line.tests for line in lines)
    drawn = Table(
        title=title, title_justify="left", highlight=False, box=box.SIMPLE, pad_edge=False
    )
    drawn.add_column("", no_wrap=True)
    for measure in columns:
        drawn.add_column(_broken(measure.title), justify="right", no_wrap=True)
        if measure.key == "success" and tested:
            drawn.add_column("difference,\npoints", justify="right", no_wrap=True)
            drawn.add_column("p (t)\np (flip)", justify="right", no_wrap=True)
    for line in lines:
        cells = [_two(line.name, counted(len(line.records), "seed"))]
        for measure in columns:
            found = line.intervals.get(measure.key)
            low_high = bounds(found, measure.kind) if found else ""
            cells.append(_two(mean_text(line, measure.key, measure.kind), low_high))
            if measure.key == "success" and tested:
                cells += _test_cells(line)
        drawn.add_row(*cells)
    return drawn


def present(lines: Sequence[Line], shown: Sequence[Measure]) -> list[Measure]:
    """The measures that some line has."""
    return [m for m in shown if any(mean_text(line, m.key, m.kind) for line in lines)]


def _two(text: str, small: str) -> Text:
    return Text.assemble(text, ("\n" + small, "dim"))


def _test_cells(line: Line) -> list[Text]:
    if "success" not in line.tests:
        return [Text(""), Text("")]
    test = line.tests["success"]
    difference = _two(written(test.difference.mean, "points"), bounds(test.difference, "points"))
    return [difference, Text(f"{p_text(test.t)}\n{p_text(test.flip)}")]


def _broken(title: str) -> str:
    """A head on two or three lines."""
    lines = [""]
    for word in title.split():
        if len(lines[-1]) + len(word) > WORDS and lines[-1]:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)
