"""Draw how far variants are from the baseline: one panel for each folder of results, side by side.

python tools/draw_differences.py "GeoHop=docs/results/geo_hop" "Simulator=docs/results/simulator" \\
    --variants trace pcl vip infotree tree_grpo at2po treepo --out docs/images/results.svg

The folders are those of tools/compare_allocation.py. A row is a variant: every seed a pale dot, the
mean a full one, its 95 % interval a bar. All are points of final success, minus the baseline's of
the same seed; so 0 is the baseline.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from megatron_trace.compare.pictures import ROW, colors, interval_chart
from megatron_trace.compare.record import read_records
from megatron_trace.compare.statistics import interval
from megatron_trace.compare.summary import Line, Measure, measures, summarise
from megatron_trace.report import charts
from megatron_trace.report.axes import BOTTOM, TOP
from megatron_trace.report.svg import document

GAP = 16


def panel(title: str, folder: Path, variants: Sequence[str], baseline: str) -> str:
    """The chart of one folder; variants that it has no results of are left out.

    Args:
        title: what the folder holds, the chart's heading.
        folder: JSON files of a comparison with one budget.
        variants: the rows, from the top.
        baseline: the variant that is subtracted.
    """
    lines = summarise(read_records(folder), baseline)
    of_baseline = next(line for line in lines if line.variant == baseline)
    by_name = {line.variant: line for line in lines}
    shown = [by_name[name] for name in variants if name in by_name]
    rows = [subtract(line, of_baseline) for line in shown]
    # Colours follow the rows, not the folder, so that a variant has the same one in every panel.
    return interval_chart(rows, colors(rows, baseline), Measure("points", title, "number"))


def subtract(line: Line, baseline: Line) -> Line:
    """`line` with one measure, `points`: final success minus the baseline's, seed by seed."""
    seeds = [seed for seed in line.records if seed in baseline.records]
    points = []
    for seed in seeds:
        own = measures(line.records[seed])["success"]
        other = measures(baseline.records[seed])["success"]
        points.append(100 * (own - other))
    return replace(line, values={"points": points}, intervals={"points": interval(points)})


def side_by_side(panels: Sequence[str], label: str, height: float) -> str:
    """Complete drawings in a row, in one drawing."""
    step = charts.WIDTH + GAP
    moved = [
        f'<g transform="translate({number * step:.0f} 0)">{drawing}</g>'
        for number, drawing in enumerate(panels)
    ]
    return document("".join(moved), len(panels) * step - GAP, height, label)


def main() -> None:
    """Parse the command line and write the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("panels", nargs="+", metavar="TITLE=FOLDER")
    parser.add_argument("--variants", nargs="+", required=True, help="the rows, from the top")
    parser.add_argument("--baseline", default="uniform", help="the variant that is subtracted")
    parser.add_argument("--out", type=Path, required=True, help="the SVG file")
    args = parser.parse_args()
    drawn = []
    for one in args.panels:
        title, _, folder = one.partition("=")
        drawn.append(panel(title, Path(folder), args.variants, args.baseline))
    label = f"Final success minus {args.baseline}'s, in points"
    height = TOP + ROW * len(args.variants) + BOTTOM
    args.out.write_text(side_by_side(drawn, label, height), encoding="utf-8")


if __name__ == "__main__":
    main()
