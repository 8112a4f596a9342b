"""The page of a comparison: one HTML file that needs nothing else, made from the records alone."""

from collections.abc import Sequence
from pathlib import Path

from megatron_trace.compare.pictures import (
    against_baseline,
    colors,
    interval_chart,
    ratio_chart,
    success_chart,
)
from megatron_trace.compare.record import Record
from megatron_trace.compare.summary import HELD_STILL, MEASURES, Line, Measure, summarise, trained
from megatron_trace.compare.table import present
from megatron_trace.compare.words import bounds, footnotes, mean_text, p_text, seeds_of, written
from megatron_trace.files.atomic import write_text
from megatron_trace.report.page import card, grid, page, section
from megatron_trace.report.svg import escape
from megatron_trace.report.words import counted

CHARTED = ("success", "on_the_way", "effective_ratio", "reach")
FOOTER = (
    "Lines are means over seeds, the band around them one standard error over seeds. In the rows of dots a pale dot is "
    "a seed, a full one the mean, the bar its 95 % bootstrap interval."
)


def write_comparison(
    path: Path, records: Sequence[Record], baseline: str, command: str = ""
) -> Path:
    """Write the page; it appears only when it is whole.

    Args:
        records: at least one, all real or all simulated.
        baseline: name of the variant that the others are tested against.
        command: the command line to be shown.
    """
    lines = summarise(records, baseline)
    simulated = records[0].kind == "simulated"
    palette = colors(lines, baseline)
    charts = [
        success_chart(lines, palette, "rollouts", "rollouts"),
        success_chart(lines, palette, "tokens", "sampled tokens"),
        ratio_chart(lines, palette),
    ]
    ends = [
        interval_chart(lines, palette, measure) for measure in MEASURES if measure.key in CHARTED
    ]
    text = (
        "The policy held still, in the worlds of all seeds: what one step's budget buys."
        if simulated
        else ""
    )
    training = [
        _headline(lines, baseline),
        section("All variants", _table(lines, MEASURES, tests=True) + grid(*ends)),
        section("Curves", grid(*charts)),
        section(
            f"Each against {baseline}", grid(*against_baseline(lines, palette, baseline), columns=3)
        ),
    ]
    body = [
        *(training if trained(lines) or not simulated else []),
        _held_still(lines, palette, text) if simulated else "",
        section("How to read this", _list(footnotes(lines, baseline, simulated))),
        section("How it was made", _origin(records, command)),
    ]
    where = "in the simulator" if simulated else "on the real stack"
    subtitle = f"{counted(len(lines), 'variant')}, {seeds_of(lines)}, {where}"
    document = page(
        "Allocation at equal cost", subtitle, "".join(body), kind="comparison", footer=FOOTER
    )
    return write_text(path, document)


def _headline(lines: Sequence[Line], baseline: str) -> str:
    """What is asked of the first variant, trace where it is there: how early, and how much contrast."""
    compared = [line for line in lines if line.tests]
    chosen = next(
        (line for line in compared if line.variant == "trace"), compared[0] if compared else None
    )
    if chosen is None or "success" not in chosen.tests:
        return ""
    test = chosen.tests["success"]
    tests = f"p (t) {p_text(test.t) or '–'}, p (flip) {p_text(test.flip) or '–'}"
    cards = [
        card(
            f"{chosen.name} against {baseline}, success",
            f"{written(test.difference.mean, 'points')} points",
            f"{counted(test.difference.count, 'pair')}; {tests}",
        )
    ]
    if reach := mean_text(chosen, "reach", "percent"):
        of_means = written(chosen.reach_of_means, "percent") or "never"
        seeds = f"{chosen.reached} of {counted(len(chosen.records), 'seed')}"
        note = (
            f"of {baseline}'s, to come to its final success; {seeds}; of the mean curves {of_means}"
        )
        cards.append(card("Rollouts needed", reach, note))
    if times := mean_text(chosen, "ratio_times", "times"):
        own = mean_text(chosen, "effective_ratio", "percent")
        cards.append(card("Effective ratio", f"{times} ×", f"that of {baseline}: {own}"))
    return f'<div class="cards">{"".join(cards)}</div>'


def _table(lines: Sequence[Line], shown: Sequence[Measure], *, tests: bool) -> str:
    columns = present(lines, shown)
    tested = tests and any("success" in line.tests for line in lines)
    heads = ["", "seeds"]
    for measure in columns:
        heads.append(measure.title)
        if measure.key == "success" and tested:
            heads += ["difference", "p (t)", "p (flip)"]
    rows = ["".join(f"<th>{escape(head)}</th>" for head in heads)]
    for line in lines:
        cells = [f"<td>{escape(line.name)}</td>", f"<td>{len(line.records)}</td>"]
        for measure in columns:
            low_high = (
                bounds(line.intervals[measure.key], measure.kind)
                if measure.key in line.intervals
                else ""
            )
            cells.append(_cell(mean_text(line, measure.key, measure.kind), low_high))
            if measure.key == "success" and tested:
                cells += _test_cells(line)
        rows.append("".join(cells))
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return (
        f'<div class="scroll" style="margin-bottom:16px"><table class="numbers">{body}</table></div>'
        if columns
        else ""
    )


def _cell(text: str, small: str = "") -> str:
    return f"<td>{escape(text)}{f'<small>{escape(small)}</small>' if small else ''}</td>"


def _test_cells(line: Line) -> list[str]:
    if "success" not in line.tests:
        return ["<td></td>"] * 3
    test = line.tests["success"]
    return [
        _cell(written(test.difference.mean, "points"), bounds(test.difference, "points")),
        _cell(p_text(test.t)),
        _cell(p_text(test.flip)),
    ]


def _held_still(lines: Sequence[Line], palette: dict[str, str], text: str) -> str:
    charts = [interval_chart(lines, palette, measure) for measure in HELD_STILL[:4]]
    return section(
        "The policy held still", _table(lines, HELD_STILL, tests=False) + grid(*charts), text
    )


def _list(notes: Sequence[str]) -> str:
    return f'<ul class="notes">{"".join(f"<li>{escape(note)}</li>" for note in notes)}</ul>'


def _origin(records: Sequence[Record], command: str) -> str:
    """The command, the settings that all results share and those that tell the variants apart, machines, versions."""
    shared = {
        name: value
        for name, value in records[0].settings.items()
        if all(record.settings.get(name) == value for record in records)
    }
    parts = [f"<pre>{escape(command)}</pre>"] if command else []
    parts.append(
        _details("Settings that all share", [f"{name}={value}" for name, value in shared.items()])
    )
    own = {
        record.variant: " ".join(
            f"{n}={v}" for n, v in record.settings.items() if n not in shared and n != "run.seed"
        )
        for record in records
    }
    parts.append(
        _details("Settings of each", [f"{name}: {settings}" for name, settings in own.items()])
    )
    machines = dict.fromkeys(
        " · ".join(f"{n} {v}" for n, v in record.host.items()) for record in records
    )
    made = dict.fromkeys(
        " · ".join(f"{n} {v}" for n, v in record.versions.items()) for record in records
    )
    parts.append(_details("Machines and versions", [*machines, *made]))
    return "".join(parts)


def _details(title: str, lines: Sequence[str]) -> str:
    text = escape("\n".join(line for line in lines if line))
    return f'<details style="margin-top:12px"><summary>{escape(title)}</summary><pre>{text}</pre></details>'
