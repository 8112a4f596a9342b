"""The ReAct format: a turn is a thought, then one `<search>…</search>` or one `<answer>…</answer>`.

A model that thinks (`<think>…</think>`) may quote a tag in its thoughts: what comes before the last
`</think>` is not looked at. But a turn ends where a stop string ends, in a thought too. So a thought
that quotes a whole `<search>…</search>` is a search.
"""

import re
from dataclasses import dataclass
from typing import Literal

STOP = ("</search>", "</answer>")
"""Strings that end an action."""

_TAG = re.compile(r"</?(?:search|answer)>")
_THOUGHT_END = "</think>"
_ACTION = re.compile(r".*?<(search|answer)>(.*?)</\1>\s*", re.DOTALL)


@dataclass(frozen=True)
class Action:
    """A parsed turn.

    Attributes:
        kind: what the tag asks for.
        content: the text within the tag, stripped; never empty.
    """

    kind: Literal["search", "answer"]
    content: str


def parse(text: str) -> Action | None:
    """The action in `text`; None where `text` has no tag, several tags, an empty tag, or text after
    the tag. Tags before the last `</think>` do not count.
    """
    # The beginning of a thought is not looked for: some chat templates write it into the prompt.
    text = text.rpartition(_THOUGHT_END)[2]
    # The pattern alone would accept a tag within the thought or the content, so the tags are
    # counted too.
    match = _ACTION.fullmatch(text)
    if match is None or len(_TAG.findall(text)) != 2 or not match[2].strip():
        return None
    return Action("search" if match[1] == "search" else "answer", match[2].strip())
