"""`report.html`: what a run did, in one file that needs nothing else, for light and dark. The live
page shows the same during the run, with trees of the newest step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from megatron_trace.files.atomic import write_text
from megatron_trace.report import run_charts
from megatron_trace.report.exemplars import Exemplar, choose_exemplars, newest_exemplars
from megatron_trace.report.history import History, read_history
from megatron_trace.report.page import Tile, fill
from megatron_trace.report.tree_drawing import draw_tree
from megatron_trace.report.tree_text import Decode
from megatron_trace.report.words import short
from megatron_trace.tree import by_histories


@dataclass(frozen=True)
class DrawnTree:
    """A tree's SVG and its caption."""

    drawing: str
    caption: str


def write_report(run_dir: Path | str, *, decode: Decode) -> Path:
    """Write `<run_dir>/report.html` from a run's metrics, settings and trees; what is missing is
    left out.

    Args:
        run_dir: folder of the run, finished or not.
        decode: text of token ids.

    Returns:
        The path written; the file appears only when it is whole.
    """
    run_dir = Path(run_dir)
    trees = choose_exemplars(run_dir)
    page = _page(run_dir, decode, trees, kind="training report", live_version=None)
    return write_text(run_dir / "report.html", page)


def live_page(run_dir: Path | str, *, decode: Decode, version: str) -> str:
    """The report of a run as it is now, with trees of the newest step.

    Args:
        run_dir: folder of the run.
        decode: text of token ids.
        version: the page loads itself again when its server's /version is another text.
    """
    run_dir = Path(run_dir)
    return _page(run_dir, decode, newest_exemplars(run_dir), kind="live", live_version=version)


def _page(
    run_dir: Path,
    decode: Decode,
    trees: Sequence[Exemplar],
    *,
    kind: str,
    live_version: str | None,
) -> str:
    history = read_history(run_dir)
    # A run that was killed at once has no rows at all: every part below is empty then, and left out
    # by the template.
    return fill(
        "run.html.j2",
        kind=kind,
        live_version=live_version,
        title=history.name,
        subtitle=" · ".join([*history.description(), history.progress()]),
        tiles=_tiles(history),
        charts={
            "training": run_charts.training_charts(history),
            "budget": run_charts.budget_charts(history),
            "predictor": run_charts.predictor_charts(history),
            "health": run_charts.health_charts(history),
        },
        has_continuations=history.total("continuations") > 0,
        trees=[_drawn(tree, decode, merge=history.merges) for tree in trees],
        events=history.events(),
        settings=history.config_text,
    )


def _drawn(exemplar: Exemplar, decode: Decode, *, merge: bool) -> DrawnTree:
    tree = by_histories(exemplar.tree).tree if merge else exemplar.tree
    return DrawnTree(draw_tree(tree, decode), f"Step {exemplar.step}. {exemplar.why}")


def _tiles(history: History) -> list[Tile]:
    """The headline numbers that the run has."""
    tiles = [_success_tile(history), _effective_ratio_tile(history), *_cost_tiles(history)]
    return [tile for tile in tiles if tile is not None]


def _success_tile(history: History) -> Tile | None:
    scores = history.evaluation("mean")
    if not scores:
        return None
    note = "one evaluation"
    if len(scores) > 1:
        note = f"{100 * (scores[-1] - scores[0]):+.1f} points"
    errors = history.evaluation_errors()
    if errors:
        ends = [f"{100 * error:.1f}" for error in (errors[0], errors[-1])]
        # Both ends have mostly the same standard error, which is then written once.
        note += f"; standard error {' and '.join(dict.fromkeys(ends))}"
    return Tile("Held-out success", _change(scores), note)


def _effective_ratio_tile(history: History) -> Tile | None:
    ratio = history.ends("effective_ratio")
    if ratio is None:
        return None
    bare = history.ends("effective_ratio_bare")
    note = ""
    if bare is not None and bare != ratio:
        note = f"bare rollouts alone {bare[0]:.0%} → {bare[1]:.0%}"
    return Tile("Effective ratio", _change(ratio), note)


def _cost_tiles(history: History) -> list[Tile]:
    bare, continuations = history.total("bare_rollouts"), history.total("continuations")
    rollouts = bare + continuations
    if not rollouts:
        return []
    stages = f"{bare:,.0f} bare, {continuations:,.0f} continuations"
    tokens = short(history.total("sampled_tokens"))
    return [
        Tile("Rollouts", f"{rollouts:,.0f}", stages),
        Tile("Sampled tokens", tokens, f"in {history.duration()}"),
    ]


def _change(values: Sequence[float]) -> str:
    start = f"{100 * values[0]:.1f} → " if len(values) > 1 else ""
    return f"{start}{100 * values[-1]:.1f} %"
