"""Which GPU holds what, as an SVG: a box for each node, a cell for each GPU, its memory as a bar."""

from megatron_trace.plan.machines import GIB
from megatron_trace.plan.memory import StageMemory
from megatron_trace.plan.planner import Plan
from megatron_trace.plan.words import spans
from megatron_trace.report.svg import document, fit, label

CELL, HEIGHT, GAP, MARGIN, HEAD = 138.0, 104.0, 8.0, 20.0, 74.0
"""Pixels: width and height of a GPU's cell, between cells, around all, and of the heading."""
ROW = 8
"""Most cells beside each other."""
NODES = 8
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


def picture(plan: Plan) -> str:
    """The whole cluster; of more than `NODES` nodes only the first and the last ones."""
    nodes, each = shown_nodes(plan.cluster.nodes), plan.cluster.gpus_per_node
    columns = min(each, ROW)
    rows = -(-each // columns)
    node_height = 34.0 + rows * (HEIGHT + GAP)
    width = 2 * MARGIN + 2 * GAP + columns * (CELL + GAP)
    body = [heading(plan), legend(width)]
    top = HEAD + MARGIN
    for node in nodes:
        first = node * each
        body.append(
            f'<rect x="{MARGIN}" y="{top:.1f}" width="{width - 2 * MARGIN:.1f}" height="{node_height:.1f}" rx="8" '
            'fill="none" stroke="var(--faint)" stroke-width="1.5"/>'
        )
        body.append(label(MARGIN + 12, top + 21, f"node {node}", 13, 'font-weight="600"'))
        for slot in range(each):
            line, column = divmod(slot, columns)
            x = MARGIN + GAP + 4 + column * (CELL + GAP)
            body.append(cell(plan, first + slot, x, top + 32 + line * (HEIGHT + GAP)))
        top += node_height + 12
    if len(nodes) < plan.cluster.nodes:
        hidden = plan.cluster.nodes - len(nodes)
        body.append(
            label(
                MARGIN + 12,
                top + 8,
                f"{hidden} nodes between them are like these",
                12,
                'class="soft"',
            )
        )
        top += 20
    return document("".join(body), width, top + MARGIN - 12, "Which GPU holds what")


def shown_nodes(count: int) -> list[int]:
    """All nodes, or the first and the last ones."""
    if count <= NODES:
        return list(range(count))
    return [*range(NODES // 2), *range(count - NODES // 2, count)]


def heading(plan: Plan) -> str:
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
    return label(MARGIN, 34, f"{model} on {machines}", 18, 'font-weight="650"') + label(
        MARGIN, 56, line, 12.5, 'class="soft"'
    )


def legend(width: float) -> str:
    """The colours, in one line below the heading."""
    out, x = [], MARGIN
    for name, colour in PARTS.items():
        out.append(f'<rect x="{x:.1f}" y="70" width="10" height="10" rx="2" fill="{colour}"/>')
        out.append(label(x + 15, 79, name, 11.5, 'class="soft"'))
        x += 34 + 6.4 * len(name)
    return "".join(out)


def cell(plan: Plan, gpu: int, x: float, y: float) -> str:
    """One GPU: who it is, where it stands, what it holds."""
    if gpu < plan.layout.world:
        at = plan.layout.coordinates(gpu)
        stage = plan.stages[at.pipeline]
        title, where = f"rank {gpu}", f"tp {at.tensor} · cp {at.context} · dp {at.data}"
        where += f" · ep {at.expert}" if plan.shape.experts else ""
        holds = (
            f"pp {at.pipeline} · layers {spans(plan.layout.layers(at.pipeline, plan.shape.layers))}"
        )
        return _cell(x, y, title, where, holds, train_bar(stage), stage.capacity, "var(--blue)")
    number = gpu - plan.layout.world
    engine, width = divmod(number, plan.config.rollout.tensor_parallel)
    if engine >= plan.config.rollout.workers:
        return _cell(x, y, "idle", "", "", [], plan.cluster.gpu.memory, "var(--faint)")
    memory = plan.engine
    bar = [
        ("weights", memory.weights),
        ("keys and values", max(memory.cache, 0)),
        ("not counted", memory.reserve),
    ]
    where = f"vLLM · tp {width}"
    holds = f"{memory.live} live rollouts"
    return _cell(
        x, y, f"engine {engine}", where, holds, bar, plan.cluster.gpu.memory, "var(--good)"
    )


def train_bar(stage: StageMemory) -> Bar:
    """The parts of a train GPU's memory."""
    return [
        ("weights", stage.weights),
        ("gradients", stage.gradients),
        ("optimizer", stage.optimizer),
        ("activations", stage.activations),
        ("not counted", stage.reserve),
    ]


def _cell(
    x: float, y: float, title: str, where: str, holds: str, bar: Bar, capacity: int, colour: str
) -> str:
    inner = CELL - 20
    used = sum(size for _, size in bar)
    out = [
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{CELL}" height="{HEIGHT}" rx="6" fill="{colour}" fill-opacity="0.08" '
        f'stroke="{colour}" stroke-opacity="0.45"/>',
        label(x + 10, y + 20, title, 12.5, 'font-weight="600"'),
        label(x + 10, y + 37, fit(where, inner, 11), 11, 'class="soft"'),
        label(x + 10, y + 53, fit(holds, inner, 11), 11, 'class="soft"'),
    ]
    # A bar that is too long shows all its parts, and where the GPU ends.
    scale = inner / max(used, capacity)
    out.append(
        f'<rect x="{x + 10:.1f}" y="{y + 63:.1f}" width="{capacity * scale:.1f}" height="14" rx="3" '
        'fill="none" stroke="var(--soft)" stroke-opacity="0.6"/>'
    )
    left = x + 10
    for name, size in bar:
        width = size * scale
        out.append(
            f'<rect x="{left:.2f}" y="{y + 64:.1f}" width="{width:.2f}" height="12" fill="{PARTS[name]}">'
            f"<title>{name}: {size / GIB:.1f} GiB</title></rect>"
        )
        left += width
    text = f"{used / GIB:.1f} of {capacity / GIB:.1f} GiB" if bar else ""
    style = (
        'fill="var(--bad)" style="fill:var(--bad)" font-weight="600"'
        if used > capacity
        else 'class="soft"'
    )
    out.append(label(x + 10, y + 93, text, 11, style))
    return "".join(out)
