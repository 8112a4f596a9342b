"""Answers of mathematical questions: where a reply has one, and whether it equals the right one.

The comparison is math-verify's (github.com/huggingface/Math-Verify), of two LaTeX expressions.
"""

import logging
import re

MOST_CHARS = 500
"""A longer answer is wrong. Parsing takes time that grows faster than the length."""

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_PHRASE = re.compile(r"\banswer\s*(?:is\b\s*:?|:)", re.IGNORECASE)


def final_answer(reply: str) -> str | None:
    r"""The answer of a reply: what is in its last `\boxed{}`, else after its last "answer is".

    "Answer:" is read like "answer is". The answer ends with its line; a full stop, dollars and
    asterisks around it do not belong to it.

    Returns:
        None if there is none.
    """
    boxes = list(_BOX.finditer(reply))
    if boxes:
        return _boxed(reply, boxes[-1].end())
    phrases = list(_PHRASE.finditer(reply))
    if not phrases:
        return None
    line, _, _ = reply[phrases[-1].end() :].strip().partition("\n")
    return bare(line) or None


def bare(answer: str) -> str:
    """An answer without marks around it: a box, dollars, LaTeX parentheses, asterisks, a full stop."""
    answer = answer.strip().removesuffix(".").strip("* \t\n").removesuffix(".").strip()
    for begin, end in (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]")):
        inner = answer[len(begin) : -len(end)]
        if answer == begin + inner + end and begin not in inner:
            answer = inner.strip()
    box = _BOX.match(answer)
    return (_boxed(answer, box.end()) or "") if box else answer


def _boxed(text: str, start: int) -> str | None:
    """What is between the brace before `start` and the one that closes it; None where none does."""
    depth = 1
    for match in _BRACE.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0:
            return text[start : match.start()].strip() or None
    return None


def equals(answer: str, right: str) -> bool:
    """Whether math-verify takes `answer` for equal to `right`.

    It may take for ever and all memory: see `Judge`.

    Args:
        answer, right: LaTeX without marks around it.

    Raises:
        ImportError: math-verify is missing.
    """
    from math_verify import LatexExtractionConfig, parse, verify

    # It warns in every process that it has no limit of time.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    # Not its other kinds of extraction: one of them evaluates the text as Python.
    config = [LatexExtractionConfig(boxed_match_priority=0)]
    # Its own limits of time work in the main thread only, and not within a call of C.
    parsed = [parse(rf"\boxed{{{text}}}", config, parsing_timeout=None) for text in (right, answer)]
    return bool(verify(*parsed, timeout_seconds=None))
