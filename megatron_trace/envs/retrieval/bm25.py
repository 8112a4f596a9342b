"""`SearchIndex`: BM25 in the process of the environment, over a corpus in memory or on the disk."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import bm25s

from megatron_trace.envs.answer_scores import normalize_answer
from megatron_trace.envs.retrieval.index_folder import open_index
from megatron_trace.envs.retrieval.passages import Passage, passage_of_row
from megatron_trace.files.problems import BadData, refuse
from megatron_trace.files.rows import read_rows

REMEMBERED = 65_536
"""Searches whose hits are kept in memory."""


class SearchIndex:
    """BM25 over titles and texts. Passages whose title is the query come first. Threads may share
    an index.
    """

    def __init__(
        self,
        passages: Sequence[Passage],
        bm25: bm25s.BM25,
        with_title: Callable[[str], Sequence[int]],
    ) -> None:
        """
        Args:
            bm25: the index of the passages' titles and texts.
            with_title: a normalised title -> the passages that have it.
        """
        self.passages = passages
        self._bm25, self._with_title = bm25, with_title
        # Rollouts of the same task ask the same questions, again in every step. Numbers are kept, not
        # texts: those of a mapped index would fill the memory that it saves.
        self.hits = lru_cache(maxsize=REMEMBERED)(self._hits)

    @classmethod
    def of_passages(cls, passages: Sequence[Passage]) -> "SearchIndex":
        """Index `passages` in memory.

        Raises:
            ValueError: none holds a word of two letters.
        """
        by_title: dict[str, list[int]] = defaultdict(list)
        for number, passage in enumerate(passages):
            if passage.title:
                by_title[normalize_answer(passage.title)].append(number)
        bm25 = bm25s.BM25()
        texts = [f"{title} {text}" for title, text in passages]
        tokens = bm25s.tokenize(texts, stopwords=None, show_progress=False)
        if not tokens.vocab:
            raise ValueError("BM25 finds words of two letters or more, and there is none")
        bm25.index(tokens, show_progress=False)
        return cls(passages, bm25, lambda title: by_title.get(title, []))

    @classmethod
    def from_shards(cls, corpus: str) -> "SearchIndex":
        """Index data files (path, glob or braces) in memory; a row is as `passage_of_row` says.

        Raises:
            FileNotFoundError: no file matches `corpus`.
            BadData: a file cannot be read, a row is no passage, or there is nothing to search for.
        """
        problems: list[str] = []
        passages = []
        for row in read_rows(corpus, problems):
            try:
                passages.append(passage_of_row(row.content))
            except ValueError as error:
                problems.append(f"{row.place}: {error}")
        refuse(problems)
        try:
            return cls.of_passages(passages)
        except ValueError as error:
            raise BadData(f"{corpus}: {error}") from None

    @classmethod
    def from_folder(cls, folder: str | Path) -> "SearchIndex":
        """Open an index that `build_index` wrote. It is mapped: processes share its pages.

        Raises:
            BadData: there is none, or it is damaged.
        """
        return cls(*open_index(Path(folder)))

    def search(self, query: str, top_k: int) -> tuple[Passage, ...]:
        """At most `top_k` passages, best first. A hit has the title or at least a word of `query`."""
        return tuple(self.passages[number] for number, _ in self.hits(query, top_k))

    def _hits(self, query: str, top_k: int) -> tuple[tuple[int, float], ...]:
        """Number and score of the passages that `search` finds.

        A passage whose title is the query has at least the score of the best.
        """
        # BM25 alone may rank a document that repeats a name above the document with that title.
        titled = list(self._with_title(normalize_answer(query))[:top_k])
        if len(titled) == top_k:
            return tuple((number, 0.0) for number in titled)
        tokens = bm25s.tokenize([query], stopwords=None, return_ids=False, show_progress=False)
        k = min(top_k, len(self.passages))
        found, scores = self._bm25.retrieve(tokens, k=k, show_progress=False)
        ranked = [
            (int(number), float(score))
            for number, score in zip(found[0], scores[0], strict=True)
            if score > 0
        ]
        best = max((score for _, score in ranked), default=0.0)
        others = [hit for hit in ranked if hit[0] not in titled]
        return (*((number, best) for number in titled), *others)[:top_k]
