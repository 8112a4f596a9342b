"""What a search found, as a table and as settings to paste."""

from rich.console import Console
from rich.table import Table

from megatron_trace.plan.notation import gib
from megatron_trace.plan.planner import Plan
from megatron_trace.plan.search import Found, overrides

SHOWN_REFUSALS = 3
"""Refusals that are printed where no layout passed."""


COLUMNS = (
    "",
    "step s",
    "sampling",
    "learning",
    "train",
    "tensor",
    "pipeline",
    "interleave",
    "context",
    "data",
    "expert",
    "recompute",
    "engines",
    "GiB of a train GPU",
)


def search_table(found: Found) -> Table:
    """The best layouts."""
    title = (
        f"{found.tried} layouts: {found.refused} refused by the checks, {found.too_large} too large; the best by "
        "estimated step time"
    )
    table = Table(title=title, title_justify="left")
    for name in COLUMNS:
        table.add_column(name, justify="left" if name == "recompute" else "right")
    for number, plan in enumerate(found.best, 1):
        table.add_row(str(number), *cells(plan))
    return table


def cells(plan: Plan) -> list[str]:
    """A plan's row, in the order of `COLUMNS` after the first."""
    layout, rollout, seconds = plan.layout, plan.config.rollout, plan.seconds
    return [
        f"{seconds.step:,.0f}",
        f"{seconds.sampling:,.0f}",
        f"{seconds.learning:,.0f}",
        str(layout.world),
        str(layout.tensor),
        str(layout.pipeline),
        str(layout.interleave),
        str(layout.context),
        str(layout.data),
        f"{layout.expert} x {layout.expert_tensor}" if plan.shape.experts else "",
        plan.config.recompute.granularity.value,
        f"{rollout.workers} x {rollout.tensor_parallel}",
        gib(max(stage.total for stage in plan.stages)),
    ]


def print_search(found: Found, out: Console) -> None:
    """The table and the settings to paste; where all layouts were refused, the reasons."""
    out.print(search_table(found))
    if found.refused == found.tried:
        for count, message in found.refusals[:SHOWN_REFUSALS]:
            _print_line(f"{count} refused, most often: {message}", out)
    for number, plan in enumerate(found.best, 1):
        _print_line(f"{number:2}  {overrides(plan)}", out)


def _print_line(text: str, out: Console) -> None:
    """A line as it is: it may hold brackets, and a terminal must not break what is to be pasted."""
    # markup=False: "[mlp]" of recompute.modules would be taken for a style.
    out.print(text, soft_wrap=True, highlight=False, markup=False)
