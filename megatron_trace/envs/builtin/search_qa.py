"""Multi-hop question answering with a local search engine, as in Search-R1 (arXiv 2503.09516).

In each turn the policy searches a corpus with BM25 or answers. The terminal reward is 1 for an
exact match with a gold answer, else 0.
"""

import re
import string
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import bm25s

from megatron_trace.config import setting
from megatron_trace.envs import react
from megatron_trace.envs.environment import Environment, StepResult
from megatron_trace.files.problems import BadData, refuse
from megatron_trace.files.rows import read_rows

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


def normalize_answer(text: str) -> str:
    """SQuAD normalisation: lower case, no punctuation, no articles, single spaces."""
    text = "".join(char for char in text.lower() if char not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def exact_match(answer: str, golds: Sequence[str]) -> bool:
    """Whether `answer` equals one of `golds` after normalisation."""
    return normalize_answer(answer) in {normalize_answer(gold) for gold in golds}


def _check_text(content: Mapping[str, Any], key: str) -> None:
    """Refuse `content` without a text under `key`."""
    text = content.get(key)
    if not isinstance(text, str) or not text.strip():
        raise ValueError(
            f"{key} must be a text, not {text!r}" if key in content else f"has no {key}"
        )


class SearchIndex:
    """BM25 over titles and texts. Documents whose title is the query come first. Threads may share
    an index.
    """

    def __init__(self, documents: Sequence[Mapping[str, Any]]) -> None:
        """Index `documents`, each with a `title` and a `text`.

        Raises:
            ValueError: no document holds a word of two letters.
        """
        self._documents = [
            (str(document["title"]), str(document["text"])) for document in documents
        ]
        self._by_title: dict[str, list[int]] = defaultdict(list)
        for index, (title, _) in enumerate(self._documents):
            self._by_title[normalize_answer(title)].append(index)
        self._bm25 = bm25s.BM25()
        texts = [f"{title} {text}" for title, text in self._documents]
        tokens = bm25s.tokenize(texts, stopwords=None, show_progress=False)
        if not tokens.vocab:
            raise ValueError("BM25 finds words of two letters or more, and there is none")
        self._bm25.index(tokens, show_progress=False)
        # Rollouts of the same task ask the same questions, again in every step.
        self.search = lru_cache(maxsize=65_536)(self._search)

    @classmethod
    def from_shards(cls, corpus: str) -> "SearchIndex":
        """Read data files (path, glob or braces) of objects with a `title` and a `text`.

        Raises:
            FileNotFoundError: no file matches `corpus`.
            BadData: a file cannot be read, a document is none, or there is nothing to search for.
        """
        problems: list[str] = []
        documents = []
        for row in read_rows(corpus, problems):
            try:
                _check_text(row.content, "title")
                _check_text(row.content, "text")
                documents.append(row.content)
            except ValueError as error:
                problems.append(f"{row.place}: {error}")
        refuse(problems)
        try:
            return cls(documents)
        except ValueError as error:
            raise BadData(f"{corpus}: {error}") from None

    def _search(self, query: str, top_k: int) -> tuple[tuple[str, str], ...]:
        """At most `top_k` (title, text) pairs, best first. A hit has the title or at least a word
        of `query`.
        """
        # BM25 alone may rank a document that repeats a name above the document with that title.
        hits = self._by_title.get(normalize_answer(query), [])[:top_k]
        if len(hits) < top_k:
            tokens = bm25s.tokenize([query], stopwords=None, return_ids=False, show_progress=False)
            k = min(top_k, len(self._documents))
            found, scores = self._bm25.retrieve(tokens, k=k, show_progress=False)
            ranked = [
                int(index) for index, score in zip(found[0], scores[0], strict=True) if score > 0
            ]
            hits = [*hits, *(index for index in ranked if index not in hits)][:top_k]
        return tuple(self._documents[index] for index in hits)


class SearchQA(Environment):
    """One episode of question answering. All episodes of a worker share its search index."""

    stop = react.STOP

    @dataclass
    class Options:
        """What is searched, and what an observation shows."""

        corpus: str = setting(
            "",
            "documents: .tar (WebDataset), .jsonl, .jsonl.gz or .parquet files (path, glob or "
            "brace pattern)",
            files=True,
        )
        top_k: int = setting(3, "number of documents in an observation", at_least=1)
        max_observation_chars: int = setting(
            2_000, "the documents of an observation are cut to this many characters", at_least=1
        )
        instruction: str = setting(SEARCH_R1_INSTRUCTION, "text before the question")

    def __init__(self, options: Options, max_turns: int, shared: SearchIndex) -> None:
        """An episode that `reset` or `restore` starts; `shared` is what is searched."""
        super().__init__(options, max_turns, shared)
        self._task: dict[str, Any] = {}
        self._turns = 0

    @classmethod
    def load(cls, options: Options) -> SearchIndex:
        """The index of the corpus.

        Raises:
            FileNotFoundError: no file matches `corpus`.
            BadData: it cannot be read or searched.
        """
        return SearchIndex.from_shards(options.corpus)

    def check_task(self, task: Mapping[str, Any]) -> None:
        """Refuse a task without a question, or without an answer that can be matched.

        Raises:
            ValueError: what is wrong.
        """
        _check_text(task, "question")
        answers = task.get("answers")
        if not isinstance(answers, list) or not answers:
            # A text would be taken for a list of its letters.
            raise ValueError(f"answers must be a list of texts, at least one, not {answers!r}")
        for answer in answers:
            # An empty gold answer would be matched by "the", or by a full stop.
            if not isinstance(answer, str) or not normalize_answer(answer):
                raise ValueError(f"every answer must be a text that holds a word, not {answer!r}")

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
            reward = float(exact_match(parsed.content, self._task["answers"]))
            return StepResult("", done=True, reward=reward, malformed=False)
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
        hits = self.shared.search(query, self.options.top_k)
        documents = "\n".join(
            f"Doc {rank}(Title: {title}) {text}" for rank, (title, text) in enumerate(hits, 1)
        )
        documents = documents[: self.options.max_observation_chars] or "Nothing found ."
        return f"\n<information> {documents} </information>\n"
