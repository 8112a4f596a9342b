"""Histories without a turn's thought, token by token.

Models that think before they speak are often asked with the answers of earlier turns, but without
their thoughts: prompts stay short, and so were the models trained. What remains of a turn keeps its
very tokens. Its text is never tokenized again.

    sampled         prompt <think> hm </think> \\n\\n It is 5 <|im_end|>
    later prompts   prompt It is 5 <|im_end|> …
"""

from collections.abc import Sequence
from dataclasses import dataclass

from megatron_trace.models.chat import TextCodec

BEGIN, END = "<think>", "</think>"


class NoThoughts(ValueError):
    """Thoughts cannot be stripped."""


@dataclass(frozen=True)
class ThoughtMarks:
    """The tokens around a thought.

    Attributes:
        begin, end: token ids of `<think>` and `</think>`.
        blank: ids of the tokens that are nothing but white space.
    """

    begin: int
    end: int
    blank: frozenset[int]


def thought_marks(codec: TextCodec) -> ThoughtMarks:
    """The tokens by which a model's thoughts are found.

    Raises:
        NoThoughts: its tokenizer has no such tokens.
    """
    begin, end = codec.token_id(BEGIN), codec.token_id(END)
    if begin is None or end is None:
        raise NoThoughts(
            f"the model's tokenizer has no tokens {BEGIN} and {END}, by which thoughts are found; "
            "set keep"
        )
    blank = (id for id in range(len(codec.tokenizer)) if codec.decode([id]).isspace())
    return ThoughtMarks(begin, end, frozenset(blank))


def without_thought(
    history_ids: Sequence[int], sampled_ids: Sequence[int], marks: ThoughtMarks
) -> list[int] | None:
    """A history and the turn sampled after it, without the turn's thought.

    The white space between the thought and the answer goes too. A chat template may have begun the
    thought at the end of `history_ids`; that beginning goes with it.

    Returns:
        None if the turn has no thought that ends.
    """
    if marks.end not in sampled_ids:
        return None
    after = len(sampled_ids) - list(sampled_ids)[::-1].index(marks.end)
    while after < len(sampled_ids) and sampled_ids[after] in marks.blank:
        after += 1
    if marks.begin in sampled_ids[:after]:
        before = list(sampled_ids).index(marks.begin)
        return [*history_ids, *sampled_ids[:before], *sampled_ids[after:]]
    return [*history_ids[: _opened(history_ids, marks)], *sampled_ids[after:]]


def _opened(history_ids: Sequence[int], marks: ThoughtMarks) -> int:
    """Where the thought begins that the end of a history has opened; else the history's length."""
    place = len(history_ids)
    while place and history_ids[place - 1] in marks.blank:
        place -= 1
    # A `<think>` further back is a quotation in a message.
    return place - 1 if place and history_ids[place - 1] == marks.begin else len(history_ids)
