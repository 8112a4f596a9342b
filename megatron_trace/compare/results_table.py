"""The table of a comparison: its content for the page, and drawn in the terminal."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table
from rich.text import Text

from megatron_trace.compare.measures import MEASURES, Measure
from megatron_trace.compare.number_text import interval_text, mean_text, p_text, value_text
from megatron_trace.compare.summary import VariantSummary
from megatron_trace.report.words import counted

HEAD_WIDTH = 9
"""Letters after which the head of a terminal's column is broken."""


@dataclass(frozen=True)
class Entry:
    """What stands in one place of the table, and below it in small print."""

    text: str
    small: str = ""


@dataclass(frozen=True)
class Column:
    """A head, and an entry for each variant."""

    title: str
    entries: list[Entry]


def page_columns(
    summaries: Sequence[VariantSummary], shown: Sequence[Measure], *, tests: bool = True
) -> list[Column]:
    """The columns of the page's table; none where no measure has a value.

    Args:
        tests: whether the test of success against the baseline stands beside success.
    """
    columns = []
    for measure in shown:
        column = Column(measure.title, [_mean_entry(one, measure) for one in summaries])
        # Real runs have no gradient SNR: a column stands only where something is in it.
        if any(entry.text for entry in column.entries):
            columns.append(column)
            if tests and measure.key == "success":
                columns += _test_columns(summaries)
    if not columns:
        return []
    seeds = [Entry(str(len(one.records))) for one in summaries]
    return [Column("", [Entry(one.name) for one in summaries]), Column("seeds", seeds), *columns]


def terminal_table(
    summaries: Sequence[VariantSummary],
    shown: Sequence[Measure] = MEASURES,
    *,
    tests: bool = True,
    title: str = "",
) -> Table:
    """The same for a terminal, narrower: seeds stand below the name, and one p-value below the
    other.
    """
    table = Table(
        title=title, title_justify="left", highlight=False, box=box.SIMPLE, pad_edge=False
    )
    table.add_column("", no_wrap=True)
    names = [Entry(one.name, counted(len(one.records), "seed")) for one in summaries]
    columns = [Column("", names), *_narrowed(page_columns(summaries, shown, tests=tests)[2:])]
    for column in columns[1:]:
        table.add_column(_broken(column.title), justify="right", no_wrap=True)
    for row in range(len(summaries)):
        entries = [column.entries[row] for column in columns]
        table.add_row(*(Text.assemble(one.text, (f"\n{one.small}", "dim")) for one in entries))
    return table


def _mean_entry(summary: VariantSummary, measure: Measure) -> Entry:
    text = mean_text(summary, measure.key, measure.kind)
    if not text:
        return Entry("")
    return Entry(text, interval_text(summary.intervals[measure.key], measure.kind))


def _test_columns(summaries: Sequence[VariantSummary]) -> list[Column]:
    """Difference of success, and the two p-values; none where nothing was tested."""
    tests = [one.success_test for one in summaries]
    if not any(tests):
        return []
    columns = [Column(title, []) for title in ("difference, points", "p (t)", "p (flip)")]
    for test in tests:
        entries = [Entry("")] * 3
        if test is not None:
            mean = value_text(test.difference.mean, "points")
            difference = Entry(mean, interval_text(test.difference, "points"))
            entries = [difference, Entry(p_text(test.t)), Entry(p_text(test.flip))]
        for column, entry in zip(columns, entries, strict=True):
            column.entries.append(entry)
    return columns


def _narrowed(columns: Sequence[Column]) -> list[Column]:
    """The columns with p (flip) below p (t)."""
    narrowed: list[Column] = []
    for column in columns:
        if column.title == "p (flip)":
            above = narrowed.pop()
            entries = [
                Entry(one.text, other.text)
                for one, other in zip(above.entries, column.entries, strict=True)
            ]
            column = Column(f"{above.title}\n{column.title}", entries)
        narrowed.append(column)
    return narrowed


def _broken(title: str) -> str:
    """A head on two or three lines."""
    if "\n" in title:
        return title
    lines = [""]
    for word in title.split():
        if len(lines[-1]) + len(word) > HEAD_WIDTH and lines[-1]:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)
