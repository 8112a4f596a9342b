"""An index of BM25 on the disk, for a corpus too large for every worker's memory.

The folder is written once (`tools/serve_retriever.py --build-only`) and mapped by each process that
opens it. So the processes of a node share it through the page cache.

| file | what |
| --- | --- |
| `index.json` | format, number of passages, source |
| `passages.jsonl`, `offsets.npy` | a line `[title, text]` for each passage; where each begins |
| `title_hashes.npy`, `title_passages.npy` | hashes of the normalised titles, sorted; whose they are |
| the rest | the index of bm25s |
"""

import hashlib
import json
import mmap
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import bm25s
import numpy as np

from megatron_trace.envs.answer_scores import normalize_answer
from megatron_trace.envs.retrieval.passages import Passage
from megatron_trace.files.atomic import whole_folder, write_text
from megatron_trace.files.problems import BadData

FORMAT = 1
"""Of the folder; another one is refused."""

ABOUT, PASSAGES, OFFSETS = "index.json", "passages.jsonl", "offsets.npy"
TITLE_HASHES, TITLE_PASSAGES = "title_hashes.npy", "title_passages.npy"

REMEDY = "make it again: tools/serve_retriever.py --build-only"

Titled = Callable[[str], Sequence[int]]
"""A normalised title -> the passages that have it."""


def build_index(
    folder: Path, passages: Iterable[Passage], source: str, stopwords: str | None = None
) -> int:
    """Write the index of `passages`; returns how many there are.

    The folder appears whole, and an older one of the name is replaced. Memory holds a number for
    each word of the corpus, but never the texts.

    Args:
        source: where the passages are from; it is written beside the index.
        stopwords: a list of bm25s, such as "english", whose words cannot be searched for.

    Raises:
        ValueError: there is no passage, or none holds a word of two letters.
    """
    with whole_folder(folder) as partial:
        texts = write_passages(partial, passages)
        tokens = bm25s.tokenize(texts, stopwords=stopwords, show_progress=False)  # type: ignore[arg-type]
        if not tokens.vocab:
            raise ValueError("BM25 finds words of two letters or more, and there is none")
        bm25 = bm25s.BM25()
        bm25.index(tokens, show_progress=False)
        bm25.save(partial, show_progress=False)
        about = {"format": FORMAT, "passages": len(tokens.ids), "source": source}
        write_text(partial / ABOUT, json.dumps(about | {"stopwords": stopwords}, indent=1))
    return len(tokens.ids)


def write_passages(folder: Path, passages: Iterable[Passage]) -> Iterator[str]:
    """Write the passages and their titles' hashes; yields title and text of each, to be indexed."""
    offsets, hashes, owners = array("q", [0]), array("Q"), array("q")
    with open(folder / PASSAGES, "wb") as file:
        for passage in passages:
            line = json.dumps(passage, ensure_ascii=False).encode(errors="replace")
            file.write(line + b"\n")
            if passage.title:
                hashes.append(title_hash(normalize_answer(passage.title)))
                owners.append(len(offsets) - 1)
            offsets.append(offsets[-1] + len(line) + 1)
            yield f"{passage.title} {passage.text}"
    np.save(folder / OFFSETS, np.asarray(offsets, dtype=np.int64))
    of_title = np.asarray(hashes, dtype=np.uint64)
    # Stable: passages with the same title keep their order.
    order = np.argsort(of_title, kind="stable")
    np.save(folder / TITLE_HASHES, of_title[order])
    np.save(folder / TITLE_PASSAGES, np.asarray(owners, dtype=np.int64)[order])


def open_index(folder: Path) -> tuple["StoredPassages", bm25s.BM25, Titled]:
    """Map what `build_index` wrote.

    Returns:
        The passages, the index of bm25s, and which passages have a title.

    Raises:
        BadData: the folder holds no index, one of another format, or a damaged one.
    """
    about = read_about(folder)
    if "dense" in about:
        raise BadData(f"{folder}: holds vectors; serve it with tools/serve_retriever.py")
    try:
        passages = StoredPassages(folder)
        hashes, owners = (_mapped(folder / name) for name in (TITLE_HASHES, TITLE_PASSAGES))
        bm25 = bm25s.BM25.load(folder, mmap=True)
        sizes = {len(passages), bm25.scores["num_docs"]}
        if sizes != {about["passages"]}:
            raise ValueError(f"its files hold {sorted(sizes)} passages, not {about['passages']}")
        scores = bm25.scores
        if len(hashes) != len(owners) or len(scores["data"]) != len(scores["indices"]):
            raise ValueError("its files do not fit together")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadData(f"{folder}: a damaged index ({_one_line(error)}); {REMEDY}") from None

    def with_title(title: str) -> list[int]:
        key = np.uint64(title_hash(title))
        first, end = (int(np.searchsorted(hashes, key, side)) for side in ("left", "right"))
        numbers = [int(number) for number in owners[first:end]]
        # Two titles may have the same hash.
        return [one for one in numbers if normalize_answer(passages[one].title) == title]

    return passages, bm25, with_title


def read_about(folder: Path) -> dict[str, Any]:
    """What the folder says of itself.

    Raises:
        BadData: it holds no index, or one of another format.
    """
    try:
        about = json.loads((folder / ABOUT).read_bytes())
    except FileNotFoundError:
        raise BadData(f"{folder}: holds no index ({ABOUT}); {REMEDY}") from None
    except (OSError, ValueError) as error:
        raise BadData(f"{folder}: {ABOUT} cannot be read ({_one_line(error)}); {REMEDY}") from None
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise BadData(f"{folder}: {ABOUT} is not of format {FORMAT}; {REMEDY}")
    return about


class StoredPassages(Sequence[Passage]):
    """The passages of a folder, read from the disk one at a time. Threads may share it."""

    def __init__(self, folder: Path) -> None:
        """Map the passages.

        Raises:
            OSError, ValueError: they are not there, or not whole.
        """
        self._offsets = _mapped(folder / OFFSETS)
        with open(folder / PASSAGES, "rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if len(self._bytes) != self._offsets[-1]:
            raise ValueError(f"{PASSAGES} has {len(self._bytes)} bytes, not {self._offsets[-1]}")
        # Searches read here and there; what lies behind a passage is of no use.
        with suppress(AttributeError, OSError):
            self._bytes.madvise(mmap.MADV_RANDOM)

    def __len__(self) -> int:
        """Number of passages."""
        return len(self._offsets) - 1

    def __getitem__(self, number: Any) -> Any:
        """The passage of that number, from 0."""
        if not 0 <= number < len(self):
            raise IndexError(number)
        # A slice, not `seek` and `read`: threads would share the position.
        line = self._bytes[self._offsets[number] : self._offsets[number + 1]]
        return Passage(*json.loads(line))


def title_hash(title: str) -> int:
    """64 bits of BLAKE2b; the same in every process."""
    digest = hashlib.blake2b(title.encode(errors="replace"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _mapped(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
