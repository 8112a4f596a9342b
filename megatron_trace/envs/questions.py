"""What the environments `search_qa` and `search_chat` share: their tasks, options and scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from megatron_trace.config import setting
from megatron_trace.envs.answer_scores import SCORES, normalize_answer, scores_of
from megatron_trace.envs.environment import StepResult
from megatron_trace.envs.retrieval.options import RetrieverOptions
from megatron_trace.envs.retrieval.passages import Passage, check_text


@dataclass
class QuestionOptions(RetrieverOptions):
    """What is searched, and what an answer earns."""

    score: str = setting(
        "em",
        "reward of an answer: em (exact match), f1 (of its words), or sub_em (holds a gold answer)",
        one_of=tuple(SCORES),
    )


def check_question(task: Mapping[str, Any]) -> None:
    """Refuse a task without a question, or without an answer that can be matched.

    Raises:
        ValueError: what is wrong.
    """
    check_text(task, "question")
    answers = task.get("answers")
    if not isinstance(answers, list) or not answers:
        # A text would be taken for a list of its letters.
        raise ValueError(f"answers must be a list of texts, at least one, not {answers!r}")
    for answer in answers:
        # An empty gold answer would be matched by "the", or by a full stop.
        if not isinstance(answer, str) or not normalize_answer(answer):
            raise ValueError(f"every answer must be a text that holds a word, not {answer!r}")


def judged(answer: str, golds: Sequence[str], score: str) -> StepResult:
    """The end of an episode with `answer`. All scores are parts, and `score` alone is the reward."""
    parts = scores_of(answer, golds)
    return StepResult("", done=True, reward=parts[score], malformed=False, parts=parts)


def numbered(passages: Sequence[Passage]) -> str:
    """Passages as Search-R1 shows them; "" where there is none."""
    return "\n".join(
        f"Doc {rank}(Title: {title}) {text}" for rank, (title, text) in enumerate(passages, 1)
    )
