"""The tables of docs/results say what the records say."""

from pathlib import Path

import numpy as np
import pytest

from megatron_trace.compare.record import Record, read_records
from megatron_trace.compare.summary import VariantSummary, summarise
from megatron_trace.config import Config
from megatron_trace.config.flatten import flat_settings

RESULTS = Path(__file__).parents[2] / "docs/results"
SNR = "still/gradient_snr_per_1000_rollouts"
COSINE = "still/gradient_cosine"
RATIO = "still/effective_ratio"
ERRORS = {
    "0": "simulator_errors_0.0_0",
    "0.7": "simulator_errors_0.0_0.7",
    "3": "simulator_errors_0.0_3",
    "3 and 7": "simulator_errors_0.0_3_prefix_7",
    "0.7, 2 by kind": "simulator_errors_2_0.7",
}
"""The first column of the table of predictor errors -> the folder of its records."""
LEARNED = {"broad": "simulator_learned", "recurring": "simulator_learned_recurring"}
"""The first column of the tables of learned predictors -> the folder of its records."""


def table(page: str, head: str) -> list[list[str]]:
    """The cells of the rows below the head that begins with `head`."""
    text = (RESULTS / page).read_text(encoding="utf-8")
    rows = text[text.index(head) :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip(" `") for cell in row.strip("|").split("|")] for row in rows]


def summaries(folder: str, baseline: str = "uniform") -> dict[str, VariantSummary]:
    return {one.variant: one for one in summarise(read_records(RESULTS / folder), baseline)}


def agree(cell: str, value: float, unit: float = 1.0) -> bool:
    """Whether a cell is `value`, in its unit, rounded to the digits that the cell has."""
    text = cell.split()[0].replace(",", "").replace("−", "-")
    digits = len(text.partition(".")[2])
    return abs(float(text) - value / unit) <= 0.5 * 10**-digits + 1e-9


def wrong(cells: list[str], summary: VariantSummary, measures: list[str]) -> list[str]:
    """The measures whose cell is not the mean of the records."""
    pairs = zip(cells, measures, strict=True)
    return [name for cell, name in pairs if not agree(cell, summary.intervals[name].mean)]


def test_strategies_on_geo_hop() -> None:
    found = summaries("geo_hop")
    for name, success, difference, p, ratio, _, tokens in table("geo_hop.md", "| strategy | succ"):
        one = found[name]
        assert wrong([success, ratio], one, ["success", "effective_ratio"]) == [], name
        assert agree(tokens, one.intervals["tokens"].mean, unit=1000), name
        if one.success_test is not None:
            assert agree(difference, one.success_test.difference.mean, unit=0.01), name
            assert agree(p, one.success_test.t), name


def test_strategies_in_the_simulator() -> None:
    found = summaries("simulator")
    measures = [SNR, COSINE, "still/gradient_step_cosine", RATIO, "still/mixed", "still/tokens"]
    for name, *cells in table("simulator.md", "| strategy | SNR"):
        assert wrong(cells, found[name], [*measures, "success"]) == [], name


@pytest.mark.parametrize("folder", sorted(path.name for path in RESULTS.glob("simulator*/")))
def test_simulated_records_name_only_settings_that_exist(folder: str) -> None:
    """Or the page's command would refuse the records that it made."""
    known = flat_settings(Config())
    for record in read_records(RESULTS / folder):
        named = [name for name in record.settings if name.startswith("learning.")]
        assert [n for n in named if n not in known and ".options." not in n] == [], record.variant


def check_rows(rows: list[list[str]], found: dict[str, VariantSummary]) -> None:
    """Rows of a table of the wide regime, one for each variant."""
    measures = [SNR, COSINE, RATIO, "still/mixed_share", "still/mixed", "success"]
    assert {name for name, *_ in rows} == set(found)
    for name, *cells, difference, _, reach in rows:
        one = found[name]
        assert wrong(cells, one, measures) == [], name
        assert agree(reach.removeprefix("≥ "), one.intervals["reach"].mean, unit=0.01), name
        if one.success_test is not None:
            assert agree(difference, one.success_test.difference.mean, unit=0.01), name


def test_the_wide_regime() -> None:
    check_rows(table("simulator.md", "| strategy, wide |"), summaries("simulator_wide"))


def test_true_predictions() -> None:
    rows = table("simulator.md", "| strategy, true predictions |")
    check_rows(rows, summaries("simulator_oracle"))


def test_the_size_of_the_pool() -> None:
    check_rows(table("simulator.md", "| strategy, pool |"), summaries("simulator_pool"))


def learned(tasks: str) -> list[Record]:
    """The records with a learned predictor, and those with an oracle in its place."""
    folder = LEARNED[tasks]
    return [
        record for name in (folder, f"{folder}_exact") for record in read_records(RESULTS / name)
    ]


@pytest.mark.parametrize("tasks", LEARNED)
def test_learned_predictors(tasks: str) -> None:
    found = {one.variant: one for one in summarise(learned(tasks), "uniform")}
    rows = [row for row in table("simulator.md", "| tasks | strategy |") if row[0] == tasks]
    check_rows([cells for _, *cells in rows], found)


@pytest.mark.parametrize("tasks", LEARNED)
def test_scores_of_learned_predictors(tasks: str) -> None:
    found = summaries(LEARNED[tasks])
    names = ["auc_every_root", "auc_root", "auc_prefix"]
    names += ["brier_root", "brier_constant_root", "brier_prefix", "brier_constant_prefix"]
    measures = [f"still/predictor_{name}" for name in names]
    rows = [row for row in table("simulator.md", "| predictions, tasks |") if row[0] == tasks]
    assert {name for _, name, *_ in rows} == set(found)
    for _, name, *cells in rows:
        assert wrong(cells, found[name], measures) == [], name


@pytest.mark.parametrize("tasks", LEARNED)
def test_learning_of_predictors(tasks: str) -> None:
    rows = [row for row in table("simulator.md", "| AUC in step |") if row[0] == tasks]
    assert rows
    for _, name, *cells in rows:
        curves = [
            record.steps["predictor_auc_every_root"]
            for record in learned(tasks)
            if record.variant == name
        ]
        mean = np.mean(curves, axis=0)
        for cell, step in zip(cells, (1, 2, 3, 5, 10, 20, 30), strict=True):
            assert agree(cell, mean[step - 1]), (name, step)


def test_equal_histories() -> None:
    found = summaries("simulator_merge")
    rows = table("simulator.md", "| estimator, wide |")
    assert {name for name, *_ in rows} == set(found)
    for name, *cells in rows:
        measures = [SNR, COSINE, RATIO, "still/mixed_share", "success"]
        assert wrong(cells, found[name], measures) == [], name


@pytest.mark.parametrize("error", ERRORS)
def test_predictor_errors(error: str) -> None:
    found = summaries(ERRORS[error])
    rows = [row for row in table("simulator.md", "| error |") if row[0] == error]
    assert {row[1] for row in rows} == set(found)
    for _, name, *cells, difference, _, reach in rows:
        assert wrong(cells, found[name], [SNR, COSINE, RATIO, "success"]) == [], name
        assert agree(reach.removeprefix("≥ "), found[name].intervals["reach"].mean, unit=0.01)
        test = found[name].success_test
        assert test is None or agree(difference, test.difference.mean, unit=0.01), name


def test_advantage_estimators() -> None:
    found = summaries("simulator_advantages", baseline="trace_paper")
    measures = [SNR, COSINE, "still/advantage_bias", "still/advantage_deviation", "success"]
    for name, *cells in table("simulator.md", "| estimator |"):
        assert wrong(cells, found[name], measures) == [], name
