"""`Passage`: what a search finds. How a corpus, and a server that speaks `/retrieve`, write it."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol


class Passage(NamedTuple):
    """A piece of text that a search finds.

    Attributes:
        title: "" where it has none.
        text: without the title.
    """

    title: str
    text: str


class Retriever(Protocol):
    """What is searched. Threads may share it."""

    def search(self, query: str, top_k: int) -> tuple[Passage, ...]:
        """At most `top_k` passages, best first; none is an answer too.

        Raises:
            RetrieverFailed: there is no answer.
        """
        ...


class RetrieverFailed(Exception):
    """A retriever gave no answer that can be used. It is no fault of the policy.

    Attributes:
        may_pass: whether the same request may be answered later.
    """

    def __init__(self, why: str, may_pass: bool = True) -> None:
        """`why` is one line."""
        super().__init__(why)
        self.may_pass = may_pass


def check_text(content: Mapping[str, Any], key: str) -> None:
    """Refuse `content` without a text under `key`.

    Raises:
        ValueError: there is none, or it is blank.
    """
    text = content.get(key)
    if not isinstance(text, str) or not text.strip():
        raise ValueError(
            f"{key} must be a text, not {text!r}" if key in content else f"has no {key}"
        )


def passage_of_row(row: Mapping[str, Any]) -> Passage:
    """The passage in a row of a corpus: `title` and `text`, or `contents`.

    Raises:
        ValueError: it has neither.
    """
    if "contents" in row and "text" not in row:
        check_text(row, "contents")
        return split_contents(row["contents"])
    check_text(row, "title")
    check_text(row, "text")
    return Passage(row["title"], row["text"])


def split_contents(contents: str) -> Passage:
    """The passage that Search-R1's corpora write as `"Title"`, a new line, and the text."""
    title, newline, text = contents.partition("\n")
    if not newline:
        return Passage("", contents)
    quoted = len(title) > 1 and title.startswith('"') and title.endswith('"')
    return Passage(title[1:-1] if quoted else title, text)


def passages_of_answer(answer: Any, top_k: int) -> tuple[Passage, ...]:
    """The passages in a server's answer to one query.

    Args:
        answer: `{"result": [[hit, ...]]}`, with one list for each query. A hit is
            `{"document": {...}, "score": ...}` or a document; a document has `text`, perhaps with a
            `title`, or `contents`. Scores are not looked at: the order is the server's.
        top_k: further hits are left out.

    Raises:
        ValueError: it is something else.
    """
    result = answer.get("result") if isinstance(answer, dict) else None
    if not isinstance(result, list):
        raise ValueError(f"has no list `result`, but is {_shown(answer)}")
    if len(result) != 1:
        raise ValueError(f"holds results of {len(result)} queries, where 1 was asked")
    if not isinstance(result[0], list):
        raise ValueError(f"its result is {_shown(result[0])}, which is no list")
    return tuple(_passage_of_hit(hit) for hit in result[0][:top_k])


def _passage_of_hit(hit: Any) -> Passage:
    document = hit.get("document", hit) if isinstance(hit, dict) else None
    if not isinstance(document, dict):
        raise ValueError(f"a hit is {_shown(hit)}, which is no document")
    title, text = document.get("title") or "", document.get("text")
    if text is None and isinstance(document.get("contents"), str):
        title, text = split_contents(document["contents"])
    if not isinstance(text, str) or not isinstance(title, str):
        raise ValueError(f"a document is {_shown(document)}, which has no text and no contents")
    if not title.strip() and not text.strip():
        raise ValueError("holds a document that has no word")
    # A lone surrogate is no text that a tokenizer takes.
    return Passage(_unicode(title), _unicode(text))


def _unicode(text: str) -> str:
    return text.encode(errors="replace").decode()


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:80]}…"
