"""A plan as tables for the terminal."""

import dataclasses

from rich.console import Console
from rich.table import Table

from megatron_trace.config import Precision
from megatron_trace.plan.assumptions import Assumptions
from megatron_trace.plan.planner import Plan
from megatron_trace.plan.words import flag, gib, spans, verdict
from megatron_trace.report.words import counted


def print_plan(plan: Plan, assumptions: Assumptions, out: Console) -> None:
    """All of a plan, with what it assumes."""
    out.print(headline(plan))
    for table in (train_table(plan), engine_table(plan), step_table(plan)):
        out.print(table)
    out.print(capacity_line(plan))
    out.print(assumption_table(assumptions))


def headline(plan: Plan) -> str:
    """The model, the cluster and the layout."""
    layout, cluster, rollout = plan.layout, plan.cluster, plan.config.rollout
    sizes = f"tensor {layout.tensor} x pipeline {layout.pipeline} x context {layout.context} x data {layout.data}"
    if plan.shape.experts:
        sizes += f", expert {layout.expert} x expert tensor {layout.expert_tensor}"
    return (
        f"[bold]{plan.config.model.path}[/bold]: {plan.shape.weights / 1e6:,.1f} million weights, "
        f"{_precision(plan)}, on {cluster.nodes} x {cluster.gpus_per_node} {cluster.gpu.name}\n"
        f"{counted(layout.world, 'train GPU')} ({sizes}), {counted(rollout.workers, 'engine')} of "
        f"{counted(rollout.tensor_parallel, 'GPU')}\n"
        + ("[green]everything fits[/green]" if plan.fits else "[red]does not fit[/red]")
        + _crossing(plan)
    )


def _crossing(plan: Plan) -> str:
    each = plan.cluster.gpus_per_node
    if not plan.layout.tensor_crosses_nodes(each):
        return ""
    return (
        f"\n[yellow]parallel.tensor = {plan.layout.tensor} crosses nodes of {counted(each, 'GPU')}: every layer waits "
        "for the network[/yellow]"
    )


def _precision(plan: Plan) -> str:
    precision = plan.config.precision
    name = precision.train.value
    return f"{name} ({precision.fp8_recipe.value})" if precision.train is Precision.fp8 else name


def train_table(plan: Plan) -> Table:
    """Memory of a train GPU of every pipeline stage, a column for each."""
    table = Table(title="a train GPU, GiB", title_justify="left")
    table.add_column("pipeline stage")
    for stage in range(len(plan.stages)):
        table.add_column(str(stage), justify="right")
    table.add_row(
        "layers",
        *(spans(plan.layout.layers(s, plan.shape.layers)) for s in range(len(plan.stages))),
    )
    for name in (
        "weights",
        "gradients",
        "optimizer",
        "activations",
        "reserve",
        "total",
        "capacity",
    ):
        shown = name if name != "reserve" else "not counted"
        table.add_row(
            shown,
            *(gib(getattr(stage, name)) for stage in plan.stages),
            end_section=name == "reserve",
        )
    table.add_row("", *(verdict(stage.fits) for stage in plan.stages))
    return table


def engine_table(plan: Plan) -> Table:
    """Memory of a GPU of the fleet."""
    engine, rollout = plan.engine, plan.config.rollout
    table = Table(title="a rollout GPU, GiB", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in (
        ("weights", gib(engine.weights)),
        ("keys and values", gib(engine.cache)),
        ("not counted", gib(engine.reserve)),
        ("KiB of a token", f"{engine.token / 1024:.1f}"),
        ("tokens that fit", f"{engine.cached_tokens:,}"),
        (f"histories of {rollout.max_history_tokens} that fit", f"{engine.histories:,}"),
        ("rollouts at once", str(engine.live)),
        ("", verdict(engine.fits)),
    ):
        table.add_row(name, value)
    return table


def step_table(plan: Plan) -> Table:
    """What a step is, and how long it may take."""
    work, seconds = plan.work, plan.seconds
    table = Table(title=f"a step, about {seconds.step:,.0f} s", title_justify="left")
    for name in ("phase", "what", "s"):
        table.add_column(name, justify="right" if name == "s" else "left")
    rollouts = f"{work.bare_rollouts} bare rollouts, {work.continuations} continuations"
    size = plan.config.learning.batching.micro_batch_tokens
    batches = f"{plan.micro_batches} micro-batches of {size} a rank and update"
    rows: tuple[tuple[str, str, float], ...] = (
        (
            "prompts, observations",
            f"{work.prefilled:,.0f} tokens, prefixes cached",
            seconds.prefill,
        ),
        ("sampling", f"{work.sampled:,.0f} tokens; {rollouts}", seconds.decode),
        (
            "learning",
            f"{work.trained:,.0f} tokens, {work.learned:,.0f} learned; {batches}",
            seconds.compute,
        ),
        ("", "waiting for other ranks", seconds.communicate),
        ("", "waiting for the pipeline", seconds.bubble),
        ("weights", "to all engines", seconds.weights),
    )
    for name, what, time in rows:
        table.add_row(name, what, f"{time:,.1f}")
    return table


def capacity_line(plan: Plan) -> str:
    """How fleet and train ranks match."""
    match = plan.capacity
    return (
        f"The train GPUs work {match.train_share:.0%} of a step; they wait while the fleet samples. Sampling takes as "
        f"long as learning with {counted(match.busy_workers, 'engine')} ({counted(match.busy_gpus, 'GPU')})."
    )


def assumption_table(assumptions: Assumptions) -> Table:
    """Every number that is assumed, with its flag."""
    table = Table(title="assumed, not measured", title_justify="left")
    for name in ("flag", "value", "meaning"):
        table.add_column(name)
    for field in dataclasses.fields(assumptions):
        value = getattr(assumptions, field.name)
        table.add_row(flag(field.name), f"{value:g}", field.metadata["meaning"])
    return table
