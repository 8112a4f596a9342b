"""Draw a finished run for the documentation: `tree.svg` and `curves.svg`.

python tools/make_pictures.py runs/trace --out docs/images
"""

import argparse
from pathlib import Path

from megatron_trace.files.atomic import write_text
from megatron_trace.report.axes import side_by_side
from megatron_trace.report.exemplars import choose_exemplars
from megatron_trace.report.history import decoder, read_history
from megatron_trace.report.run_charts import effective_ratio_chart, evaluation_chart
from megatron_trace.report.tree_drawing import draw_tree


def curves(run_dir: Path) -> str:
    """Held-out success and effective ratio side by side."""
    history = read_history(run_dir)
    charts = [evaluation_chart(history), effective_ratio_chart(history)]
    return side_by_side(charts, "Held-out success and effective ratio")


def main() -> None:
    """Parse the command line and write the pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument(
        "--tree", type=int, default=0, help="which of the report's trees, counted from 0"
    )
    parser.add_argument(
        "--tokenizer", help="HF folder of the tokenizer; by default the run's start policy"
    )
    args = parser.parse_args()
    exemplars = choose_exemplars(args.run)
    if args.tree >= len(exemplars):
        raise SystemExit(f"{args.run} offers {len(exemplars)} trees to draw")
    picture = draw_tree(exemplars[args.tree].tree, decoder(args.run, args.tokenizer))
    write_text(args.out / "tree.svg", picture)
    write_text(args.out / "curves.svg", curves(args.run))


if __name__ == "__main__":
    main()
