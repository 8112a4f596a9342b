"""Which GPU holds what, as an SVG: a box for each node, a cell for each GPU, its memory as a bar."""

from dataclasses import dataclass

from megatron_trace.plan.machines import GIB
from megatron_trace.plan.memory import StageMemory
from megatron_trace.plan.notation import spans
from megatron_trace.plan.planner import Plan
from megatron_trace.report.axes import heading, legend
from megatron_trace.report.svg import SOFT, document, label, rect
from megatron_trace.report.text_fitting import fit

MARGIN = 20.0
HEADER_HEIGHT = 74.0
CELL_WIDTH, CELL_HEIGHT, CELL_GAP = 138.0, 104.0, 8.0
NODE_HEADER_HEIGHT = 34.0
"""Pixels."""

MOST_COLUMNS = 8
"""Most cells beside each other."""

MOST_NODES = 8
"""Most nodes that are drawn."""

PARTS = {
    "weights": "var(--blue)",
    "gradients": "var(--teal)",
    "optimizer": "var(--violet)",
    "activations": "var(--orange)",
    "keys and values": "var(--good)",
    "not counted": "var(--bare)",
}
"""What memory holds, and its colour."""

Bar = list[tuple[str, int]]
"""(part, bytes)."""


@dataclass(frozen=True)
class Cell:
    """What is written and drawn for one GPU.

    Attributes:
        title: what runs there.
        place: its coordinates.
        holds: its part of the work.
        bar: the parts of its memory.
        capacity: bytes of its memory.
        color: of its box, a CSS colour.
    """

    title: str
    place: str
    holds: str
    bar: Bar
    capacity: int
    color: str


def picture(plan: Plan) -> str:
    """The whole cluster; of more than `MOST_NODES` nodes only the first and the last ones."""
    nodes = shown_nodes(plan.cluster.nodes)
    gpus = plan.cluster.gpus_per_node
    columns = min(gpus, MOST_COLUMNS)
    rows = -(-gpus // columns)
    node_height = NODE_HEADER_HEIGHT + rows * (CELL_HEIGHT + CELL_GAP)
    width = 2 * MARGIN + 2 * CELL_GAP + columns * (CELL_WIDTH + CELL_GAP)
    body = [_header(plan), legend(list(PARTS.items()), MARGIN, 70)]
    top = HEADER_HEIGHT + MARGIN
    for node in nodes:
        outline = 'rx="8" fill="none" stroke="var(--faint)" stroke-width="1.5"'
        body.append(rect(MARGIN, top, width - 2 * MARGIN, node_height, outline))
        body.append(label(MARGIN + 12, top + 21, f"node {node}", 13, 'font-weight="600"'))
        for slot in range(gpus):
            row, column = divmod(slot, columns)
            x = MARGIN + CELL_GAP + 4 + column * (CELL_WIDTH + CELL_GAP)
            y = top + 32 + row * (CELL_HEIGHT + CELL_GAP)
            body.append(_drawn(cell(plan, node * gpus + slot), x, y))
        top += node_height + 12
    hidden = plan.cluster.nodes - len(nodes)
    if hidden:
        text = f"{hidden} nodes between them are like these"
        body.append(label(MARGIN + 12, top + 8, text, 12, SOFT))
        top += 20
    return document("".join(body), width, top + MARGIN - 12, "Which GPU holds what")


def shown_nodes(count: int) -> list[int]:
    """All nodes, or the first and the last ones."""
    if count <= MOST_NODES:
        return list(range(count))
    return [*range(MOST_NODES // 2), *range(count - MOST_NODES // 2, count)]


def _header(plan: Plan) -> str:
    """Model, cluster and layout."""
    layout, cluster, rollout = plan.layout, plan.cluster, plan.config.rollout
    model = plan.config.model.path.rstrip("/").split("/")[-1]
    machines = f"{cluster.nodes} x {cluster.gpus_per_node} {cluster.gpu.name}"
    sizes = f"tensor {layout.tensor}, context {layout.context}, data {layout.data}, pipeline {layout.pipeline}"
    if plan.shape.experts:
        sizes += f", expert {layout.expert}"
    line = (
        f"{layout.world} train GPUs ({sizes}) · {rollout.workers} engines of {rollout.tensor_parallel} · "
        f"about {plan.seconds.step:,.0f} s a step"
    )
    title = heading(f"{model} on {machines}", MARGIN, 34, 18)
    return title + label(MARGIN, 56, line, 12.5, SOFT)


def cell(plan: Plan, gpu: int) -> Cell:
    """What a GPU does: the first ones train, the next ones hold engines, the rest is idle."""
    number = gpu - plan.layout.world
    if number < 0:
        return _train_cell(plan, gpu)
    engine, tensor_rank = divmod(number, plan.config.rollout.tensor_parallel)
    if engine >= plan.config.rollout.workers:
        return Cell("idle", "", "", [], plan.cluster.gpu.memory, "var(--faint)")
    memory = plan.engine
    # An engine that does not fit has less than no memory left for its cache.
    bar = [
        ("weights", memory.weights),
        ("keys and values", max(memory.cache, 0)),
        ("not counted", memory.reserve),
    ]
    return Cell(
        f"engine {engine}",
        f"vLLM · tp {tensor_rank}",
        f"{memory.live} live rollouts",
        bar,
        plan.cluster.gpu.memory,
        "var(--good)",
    )


def _train_cell(plan: Plan, rank: int) -> Cell:
    at = plan.layout.coordinates(rank)
    stage = plan.stages[at.pipeline]
    place = f"tp {at.tensor} · cp {at.context} · dp {at.data}"
    if plan.shape.experts:
        place += f" · ep {at.expert}"
    layers = spans(plan.layout.layers(at.pipeline, plan.shape.layers))
    holds = f"pp {at.pipeline} · layers {layers}"
    return Cell(f"rank {rank}", place, holds, _train_bar(stage), stage.capacity, "var(--blue)")


def _train_bar(stage: StageMemory) -> Bar:
    return [
        ("weights", stage.weights),
        ("gradients", stage.gradients),
        ("optimizer", stage.optimizer),
        ("activations", stage.temporary),
        ("not counted", stage.reserve),
    ]


def _drawn(shown: Cell, x: float, y: float) -> str:
    room = CELL_WIDTH - 20
    outline = (
        f'fill="{shown.color}" fill-opacity="0.08" stroke="{shown.color}" stroke-opacity="0.45"'
    )
    return "".join(
        [
            rect(x, y, CELL_WIDTH, CELL_HEIGHT, f'rx="6" {outline}'),
            label(x + 10, y + 20, shown.title, 12.5, 'font-weight="600"'),
            label(x + 10, y + 37, fit(shown.place, room, 11), 11, SOFT),
            label(x + 10, y + 53, fit(shown.holds, room, 11), 11, SOFT),
            *_memory(shown, x + 10, y + 63, room),
        ]
    )


def _memory(shown: Cell, x: float, y: float, room: float) -> list[str]:
    """The bar of a GPU's memory, and how much of it is used."""
    used = sum(size for _, size in shown.bar)
    # A bar that is too long shows all its parts, and where the GPU ends.
    scale = room / max(used, shown.capacity)
    outline = 'rx="3" fill="none" stroke="var(--soft)" stroke-opacity="0.6"'
    parts = [rect(x, y, shown.capacity * scale, 14, outline)]
    left = x
    for name, size in shown.bar:
        tooltip = f"{name}: {size / GIB:.1f} GiB"
        parts.append(rect(left, y + 1, size * scale, 12, f'fill="{PARTS[name]}"', tooltip))
        left += size * scale
    if shown.bar:
        style = SOFT
        if used > shown.capacity:
            style = 'style="fill:var(--bad)" font-weight="600"'
        text = f"{used / GIB:.1f} of {shown.capacity / GIB:.1f} GiB"
        parts.append(label(x, y + 30, text, 11, style))
    return parts
