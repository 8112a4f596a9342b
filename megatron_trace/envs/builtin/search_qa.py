"""Multi-hop question answering with a search engine, as in Search-R1 (arXiv 2503.09516).

In each turn the policy searches or answers. The terminal reward is 1 for an exact match with a gold
answer, else 0, or another score (`answer_scores.py`). docs/environments/multihop_qa.md has more.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_trace.config import setting
from megatron_trace.envs import react
from megatron_trace.envs.environment import Environment, StepResult
from megatron_trace.envs.questions import QuestionOptions, check_question, judged, numbered
from megatron_trace.envs.retrieval.options import open_retriever, reads_of
from megatron_trace.envs.retrieval.passages import Retriever, RetrieverFailed

SEARCH_R1_INSTRUCTION = (
    "Answer the given question. First reason about what you still need to know. If you lack some "
    "knowledge, "
    "call a search engine by <search> query </search>; it returns the top results between "
    "<information> and "
    "</information>. You can search several times. When no further external knowledge is needed, "
    "give the "
    "answer inside <answer> and </answer>, without detailed illustrations. For example, <answer> "
    "Beijing "
    "</answer>. Question: "
)
"""The prompt prefix that Search-R1 users know, without its `<think>` tags."""


class SearchQA(Environment):
    """One episode of question answering. All episodes of a worker share what they search."""

    stop = react.STOP
    retryable = (RetrieverFailed,)

    @dataclass
    class Options(QuestionOptions):
        """What is searched, what an observation shows, and what an answer earns."""

        max_observation_chars: int = setting(
            2_000, "the documents of an observation are cut to this many characters", at_least=1
        )
        instruction: str = setting(SEARCH_R1_INSTRUCTION, "text before the question")

    def __init__(self, options: Options, max_turns: int, shared: Retriever) -> None:
        """An episode that `reset` or `restore` starts; `shared` is what is searched."""
        super().__init__(options, max_turns, shared)
        self._task: dict[str, Any] = {}
        self._turns = 0

    @classmethod
    def load(cls, options: Options) -> Retriever:
        """What is searched.

        Raises:
            SettingError, FileNotFoundError, BadData: see `open_retriever`.
        """
        return open_retriever(options, "environment.options.search_qa")

    @classmethod
    def reads(cls, options: Options) -> Mapping[str, Path | str]:
        """The index that `retriever` names.

        Raises:
            SettingError: see `reads_of`.
        """
        return reads_of(options, "environment.options.search_qa")

    def check_task(self, task: Mapping[str, Any]) -> None:
        """Refuse a task without a question, or without an answer that can be matched.

        Raises:
            ValueError: what is wrong.
        """
        check_question(task)

    def reset(self, task: Mapping[str, Any]) -> list[dict[str, str]]:
        """Start on `task` (`question`, `answers`); the prompt is one user message."""
        self._task, self._turns = dict(task), 0
        return [{"role": "user", "content": self.options.instruction + task["question"]}]

    def step(self, action: str) -> StepResult:
        """Search or answer. A malformed action ends the episode; so does a search in the last turn."""
        self._turns += 1
        parsed = react.parse(action)
        if parsed is None:
            return StepResult("", done=True, reward=0.0, malformed=True)
        if parsed.kind == "answer":
            return judged(parsed.content, self._task["answers"], self.options.score)
        if self._turns >= self.max_turns:
            return StepResult("", done=True, reward=0.0, malformed=False)
        return StepResult(self._observe(parsed.content), done=False, reward=0.0, malformed=False)

    def snapshot(self) -> dict[str, Any]:
        """The task and the turns used."""
        return {"task": dict(self._task), "turns": self._turns}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Continue from `snapshot`."""
        self._task, self._turns = dict(snapshot["task"]), int(snapshot["turns"])

    def _observe(self, query: str) -> str:
        documents = numbered(self.shared.search(query, self.options.top_k))
        documents = documents[: self.options.max_observation_chars] or "Nothing found ."
        return f"\n<information> {documents} </information>\n"
