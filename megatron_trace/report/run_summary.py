"""What a run came to, as a table for the terminal."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Group
from rich.table import Table
from rich.text import Text

from megatron_trace.report.history import History, read_history
from megatron_trace.report.words import seconds_text, short

FILES = ("report.html", "metrics.jsonl", "trees", "tensorboard", "policy")
"""Files and folders of a run that are named where they are there."""


def summary_table(run_dir: Path | str) -> Group:
    """Held-out success, effective ratio, cost and time of a run, and where its files lie."""
    run_dir = Path(run_dir)
    history = read_history(run_dir)
    table = Table(
        "",
        "start",
        "end",
        "change",
        title=f"{history.name}: {history.progress()}",
        title_justify="left",
        highlight=False,
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for name in ("mean", *history.evaluation_sets()):
        _add_change(table, f"held-out success, {name}", history.evaluation(name))
    # Single steps are noisy: the ratio's start and end are means over some steps.
    _add_change(table, "effective ratio", history.ends("effective_ratio"))
    _add_change(table, "of bare rollouts alone", history.ends("effective_ratio_bare"))
    table.add_section()
    _add_cost(table, "bare rollouts", history, "bare_rollouts", "sampled_tokens_bare")
    _add_cost(table, "continuations", history, "continuations", "sampled_tokens_continuations")
    if failed := history.total("failed_rollouts"):
        table.add_row("rollouts that failed", "", f"{failed:,.0f}", "")
    table.add_section()
    _add_times(table, history)
    # One path a line and never wrapped, so that it can be copied.
    files = [str(run_dir / name) for name in FILES if (run_dir / name).exists()]
    paths = Text("\n".join(files), style="dim", no_wrap=True, overflow="ignore")
    return Group(table, paths)


def _add_times(table: Table, history: History) -> None:
    phases = history.phases()
    for phase in phases:
        seconds = history.total(f"time/{phase}")
        table.add_row(f"time, {phase}", "", seconds_text(seconds))
    if phases:
        table.add_row("time, all phases", "", history.duration())


def _add_change(table: Table, name: str, values: Sequence[float] | None) -> None:
    if not values:
        return
    start, end = values[0], values[-1]
    # As Text: the name of a held-out set may have brackets, which rich would take for markup.
    change = f"{100 * (end - start):+.1f}"
    table.add_row(Text(name), f"{start:.1%}", f"{end:.1%}", change)


def _add_cost(table: Table, name: str, history: History, rollouts: str, tokens: str) -> None:
    """A row with the sums of two metrics."""
    sampled = short(history.total(tokens))
    table.add_row(name, "", f"{history.total(rollouts):,.0f}", f"{sampled} tokens")
