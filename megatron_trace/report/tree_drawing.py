"""A rollout tree as a picture: what was sampled from where, how it ended, and what the predictor had thought.

A bare rollout runs from left to right in a straight line; the continuations of a turn hang below it.
"""

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from megatron_trace.report.metrics import bare_rewards, is_bare_mixed
from megatron_trace.report.svg import document, escape, fit, heat, label, text_width, wrap
from megatron_trace.tree import ROOT, RolloutTree, leaf_statistics
from megatron_trace.tree.backup import is_mixed

Decode = Callable[[list[int]], str]
"""Text of token ids."""

WIDTH, MARGIN, ROOT_WIDTH, GAP = 1160.0, 24.0, 104.0, 40.0
BOX, ROW = 38.0, 50.0
NARROWEST, ROOMY, WIDEST = 128.0, 150.0, 224.0

_STYLE = """
.mt .edge{fill:none;stroke:var(--bare);stroke-width:1.5}
.mt .edge.continuation{stroke:var(--blue);stroke-width:2;stroke-dasharray:5 4}
.mt .box{stroke:var(--faint);stroke-width:1}.mt .box.anchor{stroke:var(--blue);stroke-width:2.5}
.mt .badge{fill:var(--blue)}.mt .on{fill:#fff}.mt .good{fill:var(--good)}.mt .bad{fill:var(--bad)}
.mt .mark{fill:none;stroke:#fff;stroke-width:2;stroke-linecap:round;stroke-linejoin:round}
.mt .glass{fill:none;stroke:var(--soft);stroke-width:1.6;stroke-linecap:round}
.mt .turn:hover .box{stroke:var(--ink)}
"""
_TAGGED = re.compile(r"<(\w+)>\s*(.*?)\s*</\1>", re.DOTALL)


def action_parts(text: str) -> tuple[str, str]:
    """(kind, content) of an action: its last `<kind> content </kind>`, or ("text", all of it) without one."""
    tagged = _TAGGED.findall(text)
    return tagged[-1] if tagged and tagged[-1][1] else ("text", text.strip())


def question(tree: RolloutTree, decode: Decode) -> str:
    """The task's question, or the prompt where the task names none."""
    return str(tree.task.get("question") or decode(tree.turns[ROOT].observation_ids)).strip()


def gold(task: dict[str, Any]) -> str:
    """The task's gold answers, or nothing where it names none."""
    answers = task.get("answers", task.get("answer", ""))
    return " or ".join(map(str, answers)) if isinstance(answers, list) else str(answers)


def outcome(tree: RolloutTree) -> str:
    """One sentence on what the stages found."""
    bare, continuations = bare_rewards(tree), sum(r.stage == "continuation" for r in tree.rollouts)
    text = f"{len(bare)} bare rollouts, {sum(reward > 0.5 for reward in bare)} succeed"
    if not continuations:
        return text
    anchors = len({r.anchor for r in tree.rollouts if r.stage == "continuation"})
    text += (
        f"; {continuations} continuations at {anchors} {'anchor' if anchors == 1 else 'anchors'}"
    )
    if is_bare_mixed(tree):
        return text + "; the bare rollouts were mixed already"
    return text + (": they found the contrast" if is_mixed(tree) else ": still no contrast")


def turn_text(tree: RolloutTree, index: int, decode: Decode) -> str:
    """Everything about one turn, in lines, full texts included."""
    turn, (count, success, _) = tree.turns[index], leaf_statistics(tree)
    stage = (
        "root" if index == ROOT else f"{tree.rollouts[turn.rollout].stage} rollout {turn.rollout}"
    )
    facts = [
        f"turn {index}, {stage}",
        f"success {success[index]:.2f} over {count[index]} rollouts below",
    ]
    if turn.prediction is not None:
        facts.append(f"predicted {turn.prediction:.2f}")
    if turn.malformed:
        facts.append("malformed")
    if turn.versions:
        facts.append(f"policy version {turn.versions[-1]}, {len(turn.action_ids)} tokens")
    texts = [decode(turn.action_ids).strip(), decode(turn.observation_ids).strip()]
    return "\n\n".join([" · ".join(facts), *filter(None, texts)])


def svg(tree: RolloutTree, decode: Decode) -> str:
    """The tree as a self-contained SVG, 1160 pixels wide or wider where it is deep.

    Every turn is one `<g class="turn …">` with its full text as tooltip; its class also says `bare` or
    `continuation`, `anchor` where it got continuations, and `leaf` where it is terminal.
    """
    depth = max(len(tree.path(index)) - 1 for index in range(len(tree.turns)))
    room = WIDTH - 2 * MARGIN - ROOT_WIDTH
    box_width = min(max(room / max(depth, 1) - GAP, NARROWEST), WIDEST)
    width = max(WIDTH, 2 * MARGIN + ROOT_WIDTH + depth * (box_width + GAP))
    header, top = _header(tree, decode, width)
    y, bottom = _rows(tree, top)
    first = MARGIN + ROOT_WIDTH + GAP
    levels = [len(tree.path(index)) - 2 for index in range(len(tree.turns))]
    x = [first + level * (box_width + GAP) if level >= 0 else MARGIN for level in levels]
    widths = [ROOT_WIDTH if index == ROOT else box_width for index in range(len(tree.turns))]
    edges = [_edge(tree, index, x, y, widths) for index in range(1, len(tree.turns))]
    continued = Counter(
        rollout.anchor for rollout in tree.rollouts if rollout.stage == "continuation"
    )
    nodes = [
        _node(tree, index, decode, x[index], y[index], widths[index], continued[index])
        for index in range(len(tree.turns))
    ]
    body = header + "".join(edges) + "".join(nodes) + _legend(bottom + 14, bool(continued))
    return document(body, width, bottom + 48, f"Rollout tree: {question(tree, decode)}", _STYLE)


def _rows(tree: RolloutTree, top: float) -> tuple[list[float], float]:
    """Upper edge of every turn, and the lower edge of all: a turn is level with its first child."""
    children, y, following = tree.children(), [top] * len(tree.turns), top
    stack = [ROOT]
    while stack:
        index = stack.pop()
        y[index] = following
        following += 0 if children[index] else ROW
        stack += children[index][::-1]
    for index in range(len(tree.turns) - 1, ROOT, -1):
        if children[index]:
            y[index] = y[children[index][0]]
    if children[ROOT]:
        y[ROOT] = (y[children[ROOT][0]] + y[children[ROOT][-1]]) / 2
    return y, following


def _header(tree: RolloutTree, decode: Decode, width: float) -> tuple[str, float]:
    lines = wrap(question(tree, decode), width - 2 * MARGIN, 17.5, 2)
    parts = [
        label(MARGIN, 36 + 21 * n, line, 16, 'font-weight="650"') for n, line in enumerate(lines)
    ]
    y, facts = 36 + 21 * len(lines), outcome(tree)
    if gold(tree.task):
        answer = fit(gold(tree.task), width / 2, 13)
        parts.append(label(MARGIN, y, "gold answer", 13, 'class="soft"'))
        parts.append(label(MARGIN + 94, y, answer, 13, 'font-weight="600"'))
        parts.append(
            label(MARGIN + 94 + text_width(answer, 13.8) + 20, y, facts, 13, 'class="soft"')
        )
    else:
        parts.append(label(MARGIN, y, facts, 13, 'class="soft"'))
    return "".join(parts), y + 24.0


def _edge(
    tree: RolloutTree, index: int, x: list[float], y: list[float], widths: list[float]
) -> str:
    parent, stage = tree.turns[index].parent, tree.rollouts[tree.turns[index].rollout].stage
    x0, y0, x1, y1 = x[parent] + widths[parent], y[parent] + BOX / 2, x[index], y[index] + BOX / 2
    bend = GAP * 0.55
    path = f"M{x0:.1f} {y0:.1f}C{x0 + bend:.1f} {y0:.1f} {x1 - bend:.1f} {y1:.1f} {x1:.1f} {y1:.1f}"
    return f'<path class="edge {stage}" d="{path}"/>'


def _node(
    tree: RolloutTree,
    index: int,
    decode: Decode,
    x: float,
    y: float,
    width: float,
    continuations: int,
) -> str:
    turn, success = tree.turns[index], leaf_statistics(tree)[1][index]
    kind, content = ("root", "question") if index == ROOT else action_parts(decode(turn.action_ids))
    kind = "malformed" if turn.malformed else kind
    stage = "root" if index == ROOT else tree.rollouts[turn.rollout].stage
    names = [
        "turn",
        stage,
        *(["anchor"] if continuations else []),
        *(["leaf"] if turn.terminal else []),
    ]
    color, outline = heat(float(success)), "box anchor" if continuations else "box"
    parts = [
        f"<title>{escape(turn_text(tree, index, decode))}</title>",
        f'<rect class="card" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{BOX}" rx="6"/>',
        f'<rect class="{outline}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{BOX}" rx="6" '
        f'fill="{color}" fill-opacity="0.13"/>',
    ]
    start = x + 8
    if kind == "search" and not turn.terminal:
        parts.append(_glass(start + 4, y + 10.5))
        start += 15
    text = content if kind in ("root", "search") or turn.terminal else f"{kind}: {content}"
    room = x + width - (34 if turn.terminal else 8) - start
    parts.append(label(start, y + 15.5, fit(text, room, 13.2), 12, 'font-weight="550"'))
    if turn.terminal:
        parts.append(label(x + 8, y + 30, kind, 10, 'class="soft"'))
        parts.append(_mark(x + width - 19, y + BOX / 2, turn.reward > 0.5))
    else:
        parts.append(
            f'<rect x="{x + 8:.1f}" y="{y + 20.5:.1f}" width="34" height="13" rx="3" fill="{color}"/>'
        )
        attributes = 'class="on" text-anchor="middle" font-weight="650"'
        parts.append(label(x + 25, y + 30.5, f"{success:.0%}", 10, attributes))
        if turn.prediction is not None:
            word = "predicted" if width >= ROOMY else "pred."
            parts.append(
                label(x + 47, y + 30.5, f"{word} {turn.prediction:.0%}", 10, 'class="soft"')
            )
    if continuations:
        parts.append(_badge(x + width - 12, y + BOX, f"+{continuations}"))
    return f'<g class="{" ".join(names)}">{"".join(parts)}</g>'


def _badge(x: float, y: float, text: str) -> str:
    rect = f'<rect class="badge" x="{x - 15:.1f}" y="{y - 8:.1f}" width="30" height="16" rx="8"/>'
    return rect + label(x, y + 4, text, 11, 'class="on" text-anchor="middle" font-weight="700"')


def _glass(x: float, y: float) -> str:
    path = f"M{x + 2.6:.1f} {y + 2.6:.1f}l3 3"
    return f'<g class="glass"><circle cx="{x:.1f}" cy="{y:.1f}" r="3.6"/><path d="{path}"/></g>'


def _mark(x: float, y: float, success: bool) -> str:
    tick, cross = (
        f"M{x - 4:.1f} {y:.1f}l3 3.5l5.5 -6.5",
        f"M{x - 3.5:.1f} {y - 3.5:.1f}l7 7m0 -7l-7 7",
    )
    mark = tick if success else cross
    circle = f'<circle class="{"good" if success else "bad"}" cx="{x:.1f}" cy="{y:.1f}" r="9"/>'
    return f'{circle}<path class="mark" d="{mark}"/>'


def _legend(y: float, continuations: bool) -> str:
    x, parts = MARGIN, []

    def item(symbol: str, width: float, text: str) -> None:
        nonlocal x
        parts.append(symbol + label(x + width + 7, y + 4, text, 11, 'class="soft"'))
        x += width + 7 + text_width(text, 11) + 16

    for step in range(24):
        place = f'x="{x + step * 3:.1f}" y="{y - 5:.1f}" width="3.2" height="10"'
        parts.append(f'<rect {place} fill="{heat(step / 23)}"/>')
    item("", 72, "share of rollouts below that succeed, 0 to 100 %")
    item(_glass(x + 5, y - 1), 12, "search")
    item(f'<path class="edge bare" d="M{x:.1f} {y:.1f}h30"/>', 30, "bare rollout")
    if continuations:
        item(f'<path class="edge continuation" d="M{x:.1f} {y:.1f}h30"/>', 30, "continuation")
        item(_badge(x + 15, y, "+2"), 30, "anchor and its continuations")
    item(_mark(x + 9, y, True), 18, "success")
    item(_mark(x + 9, y, False), 18, "failure")
    return "".join(parts)
