"""A rollout tree as a picture: what was sampled from where, how it ended, and what the predictor
expected.
"""

from collections import Counter
from dataclasses import dataclass

from megatron_trace.report.svg import (
    BOLD,
    SOFT,
    document,
    escape,
    heat,
    joined,
    label,
    path,
    rect,
)
from megatron_trace.report.text_fitting import fit, text_width, wrap
from megatron_trace.report.tree_layout import (
    BOX_HEIGHT,
    COLUMN_GAP,
    MARGIN,
    Box,
    boxes,
    columns,
)
from megatron_trace.report.tree_legend import badge, legend, magnifier, success_mark
from megatron_trace.report.tree_text import (
    Decode,
    action_parts,
    gold,
    outcome,
    question,
    stage_of,
    turn_text,
)
from megatron_trace.tree import ROOT, RolloutTree, leaf_statistics

WIDTH_FOR_LONG_WORDS = 150.0
"""Boxes at least this wide have room for "predicted" in full."""

LEGEND_HEIGHT = 48.0
GOLD_ANSWER_WIDTH = 94.0
"""Pixels of the words `gold answer` and the gap behind them."""

_STYLE = """
.mt .edge{fill:none;stroke:var(--bare);stroke-width:1.5}
.mt .edge.continuation{stroke:var(--blue);stroke-width:2;stroke-dasharray:5 4}
.mt .box{stroke:var(--faint);stroke-width:1}.mt .box.anchor{stroke:var(--blue);stroke-width:2.5}
.mt .badge{fill:var(--blue)}.mt .on{fill:#fff}.mt .good{fill:var(--good)}.mt .bad{fill:var(--bad)}
.mt .mark{fill:none;stroke:#fff;stroke-width:2;stroke-linecap:round;stroke-linejoin:round}
.mt .glass{fill:none;stroke:var(--soft);stroke-width:1.6;stroke-linecap:round}
.mt .turn:hover .box{stroke:var(--ink)}
"""


@dataclass(frozen=True)
class _Node:
    """What the box of one turn shows.

    Attributes:
        kind, content: of its action.
        stage: `root`, `bare` or `continuation`.
        success: share of the rollouts below that succeed.
        prediction: the predictor's, if it made one.
        terminal, succeeded: whether a rollout ends here, and well.
        continuations: how many branch from here.
        tooltip: its full text.
    """

    kind: str
    content: str
    stage: str
    success: float
    prediction: float | None
    terminal: bool
    succeeded: bool
    continuations: int
    tooltip: str


def draw_tree(tree: RolloutTree, decode: Decode) -> str:
    """The tree as a self-contained SVG, 1160 pixels wide or wider where it is deep.

    Every turn is one `<g class="turn …">` with its full text as tooltip; its class also says `bare`
    or `continuation`, `anchor` where it got continuations, and `leaf` where it is terminal.
    """
    sizes = columns(tree)
    header, top = _header(tree, decode, sizes.picture_width)
    places, bottom = boxes(tree, sizes.box_width, top)
    nodes = _nodes(tree, decode)
    has_continuations = any(node.continuations for node in nodes)
    parts = [header]
    # Edges first: what comes later in an SVG lies above what came before, and boxes belong above
    # edges.
    for turn, node, box in zip(tree.turns, nodes, places, strict=True):
        if node.stage != "root":
            parts.append(_edge(places[turn.parent], box, node.stage))
    for node, box in zip(nodes, places, strict=True):
        parts.append(_drawn(node, box))
    parts.append(legend(bottom + 14, has_continuations))
    return document(
        "".join(parts),
        width=sizes.picture_width,
        height=bottom + LEGEND_HEIGHT,
        label=f"Rollout tree: {question(tree, decode)}",
        style=_STYLE,
    )


def _nodes(tree: RolloutTree, decode: Decode) -> list[_Node]:
    # Once for the whole tree: it takes a walk over all turns.
    _, success, _ = leaf_statistics(tree)
    continuations = Counter(
        rollout.anchor for rollout in tree.rollouts if rollout.stage == "continuation"
    )
    nodes = []
    for index, turn in enumerate(tree.turns):
        kind, content = ("root", "question")
        if index != ROOT:
            kind, content = action_parts(decode(turn.action_ids))
        node = _Node(
            kind="malformed" if turn.malformed else kind,
            content=content,
            stage=stage_of(tree, index),
            success=float(success[index]),
            prediction=turn.prediction,
            terminal=turn.terminal,
            succeeded=turn.reward > 0.5,
            continuations=continuations[index],
            tooltip=turn_text(tree, index, decode),
        )
        nodes.append(node)
    return nodes


def _header(tree: RolloutTree, decode: Decode, width: float) -> tuple[str, float]:
    """Question, gold answer and outcome; and where the tree begins below them."""
    parts = []
    y = 36.0
    for line in wrap(question(tree, decode), width - 2 * MARGIN, 17.5, lines=2):
        parts.append(label(MARGIN, y, line, 16, BOLD))
        y += 21
    x = MARGIN
    answer = fit(gold(tree.task), width / 2, 13)
    if answer:
        parts.append(label(x, y, "gold answer", 13, SOFT))
        x += GOLD_ANSWER_WIDTH
        parts.append(label(x, y, answer, 13, 'font-weight="600"'))
        x += text_width(answer, 13.8) + 20
    parts.append(label(x, y, outcome(tree), 13, SOFT))
    return "".join(parts), y + 24.0


def _edge(start: Box, end: Box, stage: str) -> str:
    """A curve that leaves `start` and arrives at `end` horizontally."""
    # The two control points of a Bézier curve lie level with its ends: that makes it horizontal
    # there.
    bend = COLUMN_GAP * 0.55
    control = joined([(start.right + bend, start.middle)])
    other_control = joined([(end.x - bend, end.middle)])
    first = joined([(start.right, start.middle)])
    last = joined([(end.x, end.middle)])
    return path(f"M{first}C{control} {other_control} {last}", f'class="edge {stage}"')


def _drawn(node: _Node, box: Box) -> str:
    names = ["turn", node.stage]
    if node.continuations:
        names.append("anchor")
    if node.terminal:
        names.append("leaf")
    parts = [f"<title>{escape(node.tooltip)}</title>", *_frame(node, box), *_action(node, box)]
    parts += _ending(node, box) if node.terminal else _rates(node, box)
    if node.continuations:
        parts.append(badge(box.right - 12, box.y + BOX_HEIGHT, f"+{node.continuations}"))
    return f'<g class="{" ".join(names)}">{"".join(parts)}</g>'


def _frame(node: _Node, box: Box) -> list[str]:
    """A card that hides the edges, and over it a tint by success."""
    outline = "box anchor" if node.continuations else "box"
    tint = f'class="{outline}" rx="6" fill="{heat(node.success)}" fill-opacity="0.13"'
    return [
        rect(box.x, box.y, box.width, BOX_HEIGHT, 'class="card" rx="6"'),
        rect(box.x, box.y, box.width, BOX_HEIGHT, tint),
    ]


def _action(node: _Node, box: Box) -> list[str]:
    """The first row: what the turn did."""
    parts = []
    x = box.x + 8
    if node.kind == "search" and not node.terminal:
        parts.append(magnifier(x + 4, box.y + 10.5))
        x += 15
    text = node.content
    # Searches have the magnifier, and terminal turns say their kind in the second row.
    if node.kind not in ("root", "search") and not node.terminal:
        text = f"{node.kind}: {node.content}"
    # The mark of success stands at the right of a terminal turn.
    right = box.right - (34 if node.terminal else 8)
    shown = fit(text, right - x, 13.2)
    parts.append(label(x, box.y + 15.5, shown, 12, 'font-weight="550"'))
    return parts


def _ending(node: _Node, box: Box) -> list[str]:
    """The second row of a terminal turn: what kind it was, and whether it succeeded."""
    return [
        label(box.x + 8, box.y + 30, node.kind, 10, SOFT),
        success_mark(box.right - 19, box.middle, node.succeeded),
    ]


def _rates(node: _Node, box: Box) -> list[str]:
    """The second row of any other turn: success below it, and what the predictor expected."""
    parts = [
        rect(box.x + 8, box.y + 20.5, 34, 13, f'rx="3" fill="{heat(node.success)}"'),
        label(
            box.x + 25,
            box.y + 30.5,
            f"{node.success:.0%}",
            10,
            'class="on" text-anchor="middle" font-weight="650"',
        ),
    ]
    if node.prediction is not None:
        word = "predicted" if box.width >= WIDTH_FOR_LONG_WORDS else "pred."
        parts.append(label(box.x + 47, box.y + 30.5, f"{word} {node.prediction:.0%}", 10, SOFT))
    return parts
