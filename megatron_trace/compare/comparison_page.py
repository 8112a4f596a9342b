"""The page of a comparison: one HTML file that needs nothing else, made from the records alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from megatron_trace.compare.charts import (
    Palette,
    charts_against_baseline,
    measure_chart,
    palette_of,
    ratio_chart,
    success_chart,
)
from megatron_trace.compare.footnotes import footnotes
from megatron_trace.compare.measures import HELD_STILL, MEASURES
from megatron_trace.compare.number_text import mean_text, p_text, value_text
from megatron_trace.compare.record import Record
from megatron_trace.compare.results_table import page_columns
from megatron_trace.compare.summary import VariantSummary, summarise, trained
from megatron_trace.report.page import Tile, write_page
from megatron_trace.report.words import counted

CHARTED = ("success", "on_the_way", "effective_ratio", "reach")
"""Measures that have a chart as well as a column."""

CHARTED_HELD_STILL = HELD_STILL[:4]


def write_comparison(
    path: Path, records: Sequence[Record], baseline: str, command: str = ""
) -> Path:
    """Write the page; it appears only when it is whole.

    Args:
        records: at least one, all real or all simulated.
        baseline: name of the variant that the others are tested against.
        command: the command line to be shown.
    """
    summaries = summarise(records, baseline)
    simulated = records[0].kind == "simulated"
    palette = palette_of(summaries, baseline)
    where = "in the simulator" if simulated else "on the real stack"
    # Simulations with a budget in tokens train nothing: their page has only what the start policy
    # showed.
    has_training = trained(summaries) or not simulated
    return write_page(
        path,
        "comparison.html.j2",
        kind="comparison",
        title="Allocation at equal cost",
        subtitle=f"{counted(len(summaries), 'variant')}, {_seeds(summaries)}, {where}",
        baseline=baseline,
        training=_training(summaries, palette, baseline) if has_training else None,
        held_still=_held_still(summaries, palette) if simulated else None,
        notes=footnotes(summaries, baseline, simulated),
        command=command,
        origin=_origin(records),
    )


def _training(
    summaries: Sequence[VariantSummary], palette: Palette, baseline: str
) -> dict[str, Any]:
    charted = [measure for measure in MEASURES if measure.key in CHARTED]
    return {
        "tiles": _tiles(summaries, baseline),
        "table": page_columns(summaries, MEASURES),
        "intervals": [measure_chart(summaries, palette, measure) for measure in charted],
        "curves": [
            success_chart(summaries, palette, "rollouts", "rollouts"),
            success_chart(summaries, palette, "tokens", "sampled tokens"),
            ratio_chart(summaries, palette),
        ],
        "against_baseline": charts_against_baseline(summaries, palette, baseline),
    }


def _held_still(summaries: Sequence[VariantSummary], palette: Palette) -> dict[str, Any]:
    charts = [measure_chart(summaries, palette, measure) for measure in CHARTED_HELD_STILL]
    return {"table": page_columns(summaries, HELD_STILL, tests=False), "intervals": charts}


def _seeds(summaries: Sequence[VariantSummary]) -> str:
    """How many seeds the variants have, in words."""
    counts = sorted({len(one.records) for one in summaries})
    if len(counts) == 1:
        return counted(counts[0], "seed")
    return f"{counts[0]} to {counts[-1]} seeds"


def _tiles(summaries: Sequence[VariantSummary], baseline: str) -> list[Tile]:
    """How early the first variant, or trace where it is there, came how far, and with how much
    contrast.
    """
    compared = [one for one in summaries if one.success_test is not None]
    if not compared:
        return []
    chosen = next((one for one in compared if one.variant == "trace"), compared[0])
    tiles = [_success_tile(chosen, baseline)]
    if reach := mean_text(chosen, "reach", "percent"):
        of_means = value_text(chosen.reach_of_means, "percent") or "never"
        seeds = f"{chosen.reached} of {counted(len(chosen.records), 'seed')}"
        note = (
            f"of {baseline}'s, to come to its final success; {seeds}; of the mean curves {of_means}"
        )
        tiles.append(Tile("Rollouts needed", reach, note))
    if times := mean_text(chosen, "ratio_times", "times"):
        own = mean_text(chosen, "effective_ratio", "percent")
        tiles.append(Tile("Effective ratio", f"{times} ×", f"that of {baseline}: {own}"))
    return tiles


def _success_tile(summary: VariantSummary, baseline: str) -> Tile:
    test = summary.success_test
    assert test is not None
    tests = f"p (t) {p_text(test.t) or '–'}, p (flip) {p_text(test.flip) or '–'}"
    return Tile(
        f"{summary.name} against {baseline}, success",
        f"{value_text(test.difference.mean, 'points')} points",
        f"{counted(test.difference.count, 'pair')}; {tests}",
    )


def _origin(records: Sequence[Record]) -> list[tuple[str, str]]:
    """(title, text): settings that all results share, those that tell the variants apart, machines,
    versions.
    """
    # What the first record leaves out is at its default there: so only its own settings can be
    # shared.
    shared = {}
    for name, value in records[0].settings.items():
        if all(record.settings.get(name) == value for record in records):
            shared[name] = value
    own = {}
    for record in records:
        left = {
            name: value
            for name, value in record.settings.items()
            if name not in shared and name != "run.seed"
        }
        own[record.variant] = f"{record.variant}: {_pairs(left, '=', ' ')}"
    # Keys of a dict are a set in order: each machine and each set of versions once.
    machines = dict.fromkeys(_pairs(record.host, " ", " · ") for record in records)
    versions = dict.fromkeys(_pairs(record.versions, " ", " · ") for record in records)
    return [
        ("Settings that all share", _pairs(shared, "=", "\n")),
        ("Settings of each", "\n".join(own.values())),
        ("Machines and versions", "\n".join(filter(None, [*machines, *versions]))),
    ]


def _pairs(values: Mapping[str, Any], between: str, after: str) -> str:
    return after.join(f"{name}{between}{value}" for name, value in values.items())
