"""What a search found, as a table and as settings to paste."""

from rich.console import Console
from rich.table import Table

from megatron_trace.plan.search import Found, overrides
from megatron_trace.plan.words import gib

SHOWN = 3
"""Refusals that are printed where no layout passed."""


def search_table(found: Found) -> Table:
    """The best layouts."""
    title = (
        f"{found.tried} layouts: {found.refused} refused by the checks, {found.too_large} too large; the best by "
        "estimated step time"
    )
    table = Table(title=title, title_justify="left")
    columns = (
        "",
        "step s",
        "sampling",
        "learning",
        "train",
        "tensor",
        "pipeline",
        "interleave",
        "context",
    )
    for name in (*columns, "data", "expert", "recompute", "engines", "GiB of a train GPU"):
        table.add_column(name, justify="left" if name == "recompute" else "right")
    for number, plan in enumerate(found.best, 1):
        layout, rollout, recompute = plan.layout, plan.config.rollout, plan.config.recompute
        table.add_row(
            str(number),
            *(
                f"{value:,.0f}"
                for value in (plan.seconds.step, plan.seconds.sampling, plan.seconds.learning)
            ),
            *(
                str(size)
                for size in (layout.world, layout.tensor, layout.pipeline, layout.interleave)
            ),
            *(str(size) for size in (layout.context, layout.data)),
            f"{layout.expert} x {layout.expert_tensor}" if plan.shape.experts else "",
            recompute.granularity.value,
            f"{rollout.workers} x {rollout.tensor_parallel}",
            gib(max(stage.total for stage in plan.stages)),
        )
    return table


def print_search(found: Found, out: Console) -> None:
    """The table, and what to paste; where all layouts were refused, why."""
    out.print(search_table(found))
    if found.refused == found.tried:
        for count, message in found.refusals[:SHOWN]:
            out.print(
                f"{count} refused, most often: {message}",
                soft_wrap=True,
                highlight=False,
                markup=False,
            )
    for number, plan in enumerate(found.best, 1):
        out.print(f"{number:2}  {overrides(plan)}", soft_wrap=True, highlight=False, markup=False)
