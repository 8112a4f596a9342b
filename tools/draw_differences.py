"""Draw how far variants are from the baseline: one panel for each folder of results, side by side.

python tools/draw_differences.py "GeoHop=docs/results/geo_hop" "Simulator=docs/results/simulator" \\
    --variants trace_paper pcl vip infotree tree_grpo at2po treepo --out docs/images/results.svg

The folders are those of tools/compare_allocation.py. A row is a variant: every seed a pale dot, the
mean a full one, its 95 % interval a bar. All are points of final success, minus the baseline's of
the same seed; so 0 is the baseline.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from megatron_trace.compare.charts import measure_chart, palette_of
from megatron_trace.compare.measures import Measure, measures
from megatron_trace.compare.record import read_records
from megatron_trace.compare.statistics import interval
from megatron_trace.compare.summary import VariantSummary, summarise
from megatron_trace.files.atomic import write_text
from megatron_trace.report.axes import side_by_side
from megatron_trace.report.interval_chart import chart_height


def panel(title: str, folder: Path, variants: Sequence[str], baseline: str) -> str:
    """The chart of one folder; variants that it has no results of are left out.

    Args:
        title: what the folder holds, the chart's heading.
        folder: JSON files of a comparison with one budget.
        variants: the rows, from the top.
        baseline: the variant that is subtracted.
    """
    summaries = {one.variant: one for one in summarise(read_records(folder), baseline)}
    shown = [summaries[name] for name in variants if name in summaries]
    rows = [subtract(one, summaries[baseline]) for one in shown]
    # Colours follow the rows, not the folder, so that a variant has the same one in every panel.
    return measure_chart(rows, palette_of(rows, baseline), Measure("points", title, "number"))


def subtract(summary: VariantSummary, baseline: VariantSummary) -> VariantSummary:
    """`summary` with one measure, `points`: final success minus the baseline's, seed by seed."""
    seeds = [seed for seed in summary.records if seed in baseline.records]
    points = []
    for seed in seeds:
        own = measures(summary.records[seed])["success"]
        other = measures(baseline.records[seed])["success"]
        points.append(100 * (own - other))
    return replace(summary, values={"points": points}, intervals={"points": interval(points)})


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
    picture = side_by_side(drawn, label, chart_height(len(args.variants)))
    write_text(args.out, picture)


if __name__ == "__main__":
    main()
