"""What results must have in common to be compared: world, total, model, data, and how they are
evaluated.
"""

from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

from megatron_trace.compare.record import Record
from megatron_trace.config import BudgetUnit, Config, SettingError
from megatron_trace.config.flatten import differences

COMMON = (
    "world.", "simulate.", "model.", "data.", "environment.", "evaluation.", "run.rollouts", "allocation.unit",
)  # fmt: skip
"""Settings that all results must share; `evaluation.every` only within one budget."""

DEFAULT = "the default"
"""What a message calls the value of a setting that a record leaves out."""


def check_kind(folder: Path, records: Sequence[Record], kind: str) -> None:
    """Refuse a folder with results of the other kind; all of `records` are of one kind.

    Raises:
        SettingError: they are not of `kind`.
    """
    if records and records[0].kind != kind:
        remedy = f"holds {records[0].kind} results, these are {kind}; choose another"
        raise SettingError("--results", str(folder), remedy)


def check_agreement(folder: Path, records: Sequence[Record]) -> None:
    """Refuse results that cannot be compared.

    They have different worlds, totals, models, data or evaluations, or one variant has different
    settings.

    Raises:
        SettingError: at the first setting that differs, with two values.
    """
    # What all share, what those of one budget share, and what the seeds of one variant share:
    # everything.
    _compare(folder, records, lambda record: None, _common)
    _compare(folder, records, lambda record: record.budget, _of_one_budget)
    _compare(folder, records, lambda record: (record.variant, record.budget), _all_but_the_seed)


def _compare(
    folder: Path,
    records: Sequence[Record],
    group: Callable[[Record], Hashable],
    part: Callable[[Record], dict[str, Any]],
) -> None:
    """Compare a part of each record's settings with that of the first record of its group."""
    # Equality is transitive: with the first of its group is enough, and the message names two files
    # to look at.
    firsts: dict[Hashable, Record] = {}
    for record in records:
        first = firsts.setdefault(group(record), record)
        for found in differences(part(first), part(record), absent=DEFAULT):
            remedy = (
                f"{first.name} and {record.name} differ in {found.name} ({found.first} and "
                f"{found.second}), which must be common; set it for all after --, or choose "
                "another folder"
            )
            raise SettingError("--results", str(folder), remedy)


def _common(record: Record) -> dict[str, Any]:
    found = {}
    for name, value in record.settings.items():
        if name.startswith(COMMON) and name != "evaluation.every":
            found[name] = value
    # A budget in tokens has no setting for the total: it is the number of steps times a step's
    # budget.
    if record.settings.get("allocation.unit") == BudgetUnit.tokens.value:
        steps = record.settings.get("run.steps", Config().run.steps)
        found["the total of tokens"] = steps * record.budget
    return found


def _of_one_budget(record: Record) -> dict[str, Any]:
    """A run of larger steps is evaluated after fewer of them."""
    return {name: value for name, value in record.settings.items() if name == "evaluation.every"}


def _all_but_the_seed(record: Record) -> dict[str, Any]:
    return {name: value for name, value in record.settings.items() if name != "run.seed"}
