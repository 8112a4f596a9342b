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
    title = f"{history.name}: {history.progress()}"
    table = Table("", "start", "end", "change", title=title, title_justify="left", highlight=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for name in ("mean", *history.evaluation_sets()):
        _add_change(table, f"held-out success, {name}", history.evaluation(name))
    _add_change(table, "effective ratio", history.ends("effective_ratio") or ())
    _add_change(table, "of bare rollouts alone", history.ends("effective_ratio_bare") or ())
    table.add_section()
    _add_cost(table, "bare rollouts", history, "bare_rollouts", "sampled_tokens_bare")
    _add_cost(table, "continuations", history, "continuations", "sampled_tokens_continuations")
    table.add_section()
    for phase in history.phases():
        table.add_row(f"time, {phase}", "", seconds_text(history.total(f"time/{phase}")))
    if history.phases():
        table.add_row("time, all phases", "", history.duration())
    # One path a line and never wrapped, so that it can be copied.
    files = [str(run_dir / name) for name in FILES if (run_dir / name).exists()]
    return Group(table, Text("\n".join(files), style="dim", no_wrap=True, overflow="ignore"))


def _add_change(table: Table, name: str, values: Sequence[float]) -> None:
    if values:
        start, end = values[0], values[-1]
        table.add_row(Text(name), f"{start:.1%}", f"{end:.1%}", f"{100 * (end - start):+.1f}")


def _add_cost(table: Table, name: str, history: History, rollouts: str, tokens: str) -> None:
    """A row with the sums of two metrics."""
    sampled = short(history.total(tokens))
    table.add_row(name, "", f"{history.total(rollouts):,.0f}", f"{sampled} tokens")
