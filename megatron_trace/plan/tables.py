"""A plan as tables for the terminal."""

import dataclasses

from rich.console import Console
from rich.table import Table

from megatron_trace.config import Precision
from megatron_trace.plan.assumptions import Assumptions
from megatron_trace.plan.notation import flag, gib, spans, verdict
from megatron_trace.plan.planner import Plan
from megatron_trace.report.words import counted


def print_plan(plan: Plan, assumptions: Assumptions, out: Console) -> None:
    """Print all of a plan, with what it assumes."""
    out.print(headline(plan))
    for table in (train_table(plan), engine_table(plan), step_table(plan)):
        out.print(table)
    out.print(capacity_line(plan))
    out.print(host_line(plan))
    out.print(assumption_table(assumptions))


def headline(plan: Plan) -> str:
    """The model, the cluster, the layout, and whether everything fits."""
    layout, cluster, rollout = plan.layout, plan.cluster, plan.config.rollout
    sizes = (
        f"tensor {layout.tensor} x pipeline {layout.pipeline} "
        f"x context {layout.context} x data {layout.data}"
    )
    if plan.shape.experts:
        sizes += f", expert {layout.expert} x expert tensor {layout.expert_tensor}"
    millions = f"{plan.shape.weights / 1e6:,.1f} million weights"
    machines = f"{cluster.nodes} x {cluster.gpus_per_node} {cluster.gpu.name}"
    train = counted(layout.world, "train GPU")
    engines = counted(rollout.workers, "engine")
    size = counted(rollout.tensor_parallel, "GPU")
    lines = [
        f"[bold]{plan.config.model.path}[/bold]: {millions}, {_precision(plan)}, on {machines}",
        f"{train} ({sizes}), {engines} of {size}",
        "[green]everything fits[/green]" if plan.fits else "[red]does not fit[/red]",
    ]
    # It works, but is slow enough to be an oversight.
    each = cluster.gpus_per_node
    if layout.tensor_crosses_nodes(each):
        lines.append(
            f"[yellow]parallel.tensor = {layout.tensor} crosses nodes of {counted(each, 'GPU')}: every layer waits "
            "for the network[/yellow]"
        )
    return "\n".join(lines)


def _precision(plan: Plan) -> str:
    precision = plan.config.precision
    name = precision.train.value
    if precision.train is Precision.fp8:
        name += f" ({precision.fp8_recipe.value})"
    return name


def train_table(plan: Plan) -> Table:
    """Memory of a train GPU of every pipeline stage, in GiB, a column for each stage."""
    table = Table(title="a train GPU, GiB", title_justify="left")
    table.add_column("pipeline stage")
    layers = []
    for stage in range(len(plan.stages)):
        table.add_column(str(stage), justify="right")
        layers.append(spans(plan.layout.layers(stage, plan.shape.layers)))
    table.add_row("layers", *layers)
    for name in ("weights", "gradients", "optimizer", "activations"):
        table.add_row(name, *(gib(getattr(stage, name)) for stage in plan.stages))
    table.add_row("or a transfer", *(gib(stage.transfer) for stage in plan.stages))
    table.add_row("not counted", *(gib(stage.reserve) for stage in plan.stages), end_section=True)
    table.add_row("total", *(gib(stage.total) for stage in plan.stages))
    table.add_row("capacity", *(gib(stage.capacity) for stage in plan.stages))
    table.add_row("", *(verdict(stage.fits) for stage in plan.stages))
    return table


def engine_table(plan: Plan) -> Table:
    """Memory of a GPU of the fleet, in GiB."""
    engine, longest = plan.engine, plan.config.rollout.max_history_tokens
    table = Table(title="a rollout GPU, GiB", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("weights", gib(engine.weights))
    table.add_row("keys and values", gib(engine.cache))
    table.add_row("not counted", gib(engine.reserve))
    table.add_row("KiB of a token", f"{engine.token / 1024:.1f}")
    table.add_row("tokens that fit", f"{engine.cached_tokens:,}")
    table.add_row(f"histories of {longest} that fit", f"{engine.histories:,}")
    table.add_row("rollouts at once", str(engine.live))
    table.add_row("", verdict(engine.fits))
    return table


def step_table(plan: Plan) -> Table:
    """What a step does, and how many seconds each phase may take."""
    work, seconds = plan.work, plan.seconds
    table = Table(title=f"a step, about {seconds.step:,.0f} s", title_justify="left")
    table.add_column("phase")
    table.add_column("what")
    table.add_column("s", justify="right")

    def add(phase: str, what: str, time: float) -> None:
        table.add_row(phase, what, f"{time:,.1f}")

    # Phases are in the order in which a step goes through them; an empty name continues the last
    # phase.
    rollouts = f"{work.bare_rollouts} bare rollouts, {work.continuations} continuations"
    size = plan.config.learning.batching.micro_batch_tokens
    batches = f"{plan.micro_batches} micro-batches of {size} a rank and update"
    computed = f"{work.computed:,.0f} tokens computed of {work.path:,.0f}"
    learned = f"{computed}, {work.learned:,.0f} learned; {batches}"
    prefilled = f"{work.prefilled:,.0f} tokens, prefixes cached"
    add("prompts, observations", prefilled, seconds.prefill)
    add("sampling", f"{work.sampled:,.0f} tokens; {rollouts}", seconds.decode)
    add("learning", learned, seconds.compute)
    add("", "waiting for other ranks", seconds.communicate)
    add("", "waiting for the pipeline", seconds.bubble)
    add("weights", "to all engines", seconds.weights)
    return table


def capacity_line(plan: Plan) -> str:
    """How fleet and train ranks match."""
    match = plan.capacity
    engines = counted(match.busy_workers, "engine")
    gpus = counted(match.busy_gpus, "GPU")
    return (
        f"The train GPUs work {match.train_share:.0%} of a step; they wait while the fleet samples. "
        f"Sampling takes as long as learning with {engines} ({gpus})."
    )


def host_line(plan: Plan) -> str:
    """What a checkpoint takes of a node's own memory."""
    return f"a checkpoint takes {gib(plan.checkpoint_host)} GiB of a train node's host memory"


def assumption_table(assumptions: Assumptions) -> Table:
    """Every number that is assumed, with its flag."""
    table = Table(title="assumed, not measured", title_justify="left")
    for name in ("flag", "value", "meaning"):
        table.add_column(name)
    for field in dataclasses.fields(assumptions):
        value = getattr(assumptions, field.name)
        table.add_row(flag(field.name), f"{value:g}", field.metadata["meaning"])
    return table
