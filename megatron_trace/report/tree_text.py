"""A rollout tree in words: its question, its turns, and what its stages found."""

import re
from collections.abc import Callable
from typing import Any

from megatron_trace.report.metrics import bare_rewards, is_bare_mixed
from megatron_trace.tree import ROOT, RolloutTree, leaf_statistics
from megatron_trace.tree.backup import is_mixed

Decode = Callable[[list[int]], str]
"""Text of token ids."""

_TAGGED = re.compile(r"<(\w+)>\s*(.*?)\s*</\1>", re.DOTALL)


def action_parts(text: str) -> tuple[str, str]:
    """(kind, content) of an action: its last `<kind> content </kind>`, or ("text", the whole text)
    without a tag.
    """
    # A thought before the action may quote a tag: what counts is the last one.
    tagged = _TAGGED.findall(text)
    return tagged[-1] if tagged and tagged[-1][1] else ("text", text.strip())


def question(tree: RolloutTree, decode: Decode) -> str:
    """The task's question, or the prompt where the task names none."""
    return str(tree.task.get("question") or decode(tree.turns[ROOT].observation_ids)).strip()


def gold(task: dict[str, Any]) -> str:
    """The task's gold answers, or nothing where it names none."""
    answers = task.get("answers", task.get("answer", ""))
    return " or ".join(map(str, answers)) if isinstance(answers, list) else str(answers)


def stage_of(tree: RolloutTree, index: int) -> str:
    """`root`, or the stage that sampled a turn: `bare` or `continuation`."""
    return "root" if index == ROOT else tree.rollouts[tree.turns[index].rollout].stage


def outcome(tree: RolloutTree) -> str:
    """One sentence on what the stages found."""
    bare = bare_rewards(tree)
    text = f"{len(bare)} bare rollouts, {sum(reward > 0.5 for reward in bare)} succeed"
    anchors = [rollout.anchor for rollout in tree.rollouts if rollout.stage == "continuation"]
    if not anchors:
        return text
    different = len(set(anchors))
    word = "anchor" if different == 1 else "anchors"
    text += f"; {len(anchors)} continuations at {different} {word}"
    if is_bare_mixed(tree):
        return text + "; the bare rollouts were mixed already"
    return text + (": they found the contrast" if is_mixed(tree) else ": still no contrast")


def turn_text(tree: RolloutTree, index: int, decode: Decode) -> str:
    """Everything about one turn, in lines, full texts included."""
    turn = tree.turns[index]
    stage = stage_of(tree, index)
    if index != ROOT:
        stage += f" rollout {turn.rollout}"
    count, success, _ = leaf_statistics(tree)
    facts = [
        f"turn {index}, {stage}",
        f"success {success[index]:.2f} over {count[index]} rollouts below",
    ]
    if turn.prediction is not None:
        facts.append(f"predicted {turn.prediction:.2f}")
    if turn.malformed:
        facts.append("malformed")
    if turn.versions:
        # A turn may span a weight update: the last version is that of its last token.
        facts.append(f"policy version {turn.versions[-1]}, {len(turn.action_ids)} tokens")
    action = decode(turn.action_ids).strip()
    observation = decode(turn.observation_ids).strip()
    parts = [" · ".join(facts), action, observation]
    return "\n\n".join(part for part in parts if part)
