"""Multi-hop question answering as a chat: the tool `search`, then the answer.

It is `search_qa` for models that call tools in the way of their family: the same tasks, retrievers
and scores.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_trace.config import setting
from megatron_trace.envs.environment import StepResult
from megatron_trace.envs.questions import QuestionOptions, check_question, judged, numbered
from megatron_trace.envs.retrieval.options import open_retriever, reads_of
from megatron_trace.envs.retrieval.passages import Retriever, RetrieverFailed
from megatron_trace.envs.tool_environment import ToolEnvironment, tool

INSTRUCTION = (
    "Answer the given question. If you lack some knowledge, call the tool search; you can call it "
    "several times. When no further external knowledge is needed, give the answer inside <answer> "
    "and </answer>, without detailed illustrations. For example, <answer> Beijing </answer>. "
    "Question: "
)
"""Search-R1's prompt, with a tool in place of its tags."""

_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


class SearchChat(ToolEnvironment):
    """One question. A turn that does not search is the answer."""

    # A tool beyond its time limit is a slow retriever, which is no fault of the policy either.
    retryable = (RetrieverFailed, TimeoutError)

    @dataclass
    class Options(ToolEnvironment.Options, QuestionOptions):
        """What is searched, what a search shows, and what an answer earns."""

        tool_timeout_s: float = setting(
            300.0, "seconds that a search may take, retries included; then the step fails", above=0
        )
        instruction: str = setting(INSTRUCTION, "text before the question")

    @classmethod
    def load(cls, options: Options) -> Retriever:
        """What is searched.

        Raises:
            SettingError, FileNotFoundError, BadData: see `open_retriever`.
        """
        return open_retriever(options, "environment.options.search_chat")

    @classmethod
    def reads(cls, options: Options) -> Mapping[str, Path | str]:
        """The index that `retriever` names.

        Raises:
            SettingError: see `reads_of`.
        """
        return reads_of(options, "environment.options.search_chat")

    def check_task(self, task: Mapping[str, Any]) -> None:
        """Refuse a task without a question, or without an answer that can be matched.

        Raises:
            ValueError: what is wrong.
        """
        check_question(task)

    def start(self, task: Mapping[str, Any]) -> str:
        """Instruction and question."""
        return self.options.instruction + task["question"]

    def score(self, answer: str) -> StepResult:
        """The score of the text within the last `<answer>` tags, or of the whole turn."""
        found = _ANSWER.findall(answer)
        return judged((found or [answer])[-1].strip(), self.task["answers"], self.options.score)

    @tool
    def search(self, query: str) -> str:
        """Search a corpus for passages about the query.

        Args:
            query: what to look for, such as a name or a short question.
        """
        return numbered(self.shared.search(query, self.options.top_k)) or "Nothing found."
