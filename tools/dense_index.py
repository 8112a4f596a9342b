"""Dense vectors of passages: a model of sentence-transformers, searched by faiss.

Both libraries are optional. The vectors are normalised, and the score is their inner product. The
search is exact (`IndexFlatIP`): 21 million passages of 768 numbers are 60 GiB.
"""

import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from megatron_trace.envs.retrieval.index_folder import (
    ABOUT,
    FORMAT,
    StoredPassages,
    read_about,
    write_passages,
)
from megatron_trace.envs.retrieval.passages import Passage
from megatron_trace.files.atomic import whole_folder, write_text
from megatron_trace.files.problems import BadData

VECTORS = "vectors.faiss"

BATCH = 1_024
"""Passages that are encoded and added at once."""


class MissingLibrary(Exception):
    """An optional library is not installed."""


def is_dense(folder: Path) -> bool:
    """Whether an index holds vectors.

    Raises:
        BadData: it is none.
    """
    return "dense" in read_about(folder)


def build_dense(
    folder: Path,
    passages: Iterable[Passage],
    source: str,
    model: str,
    query_prefix: str,
    passage_prefix: str,
) -> int:
    """Write vectors of all passages; returns how many there are. The folder appears whole.

    Args:
        model: a name or a folder that sentence-transformers knows.
        query_prefix, passage_prefix: what the model wants before each text, such as "query: ".

    Raises:
        MissingLibrary: faiss or sentence-transformers is missing.
        ValueError: there is no passage.
    """
    faiss, encoder = _faiss(), _encoder(model)
    with whole_folder(folder) as partial:
        texts = (f"{passage_prefix}{text}" for text in write_passages(partial, passages))
        index = None
        for batch in _batches(texts):
            vectors = encoded(encoder, batch)
            if index is None:
                index = faiss.IndexFlatIP(vectors.shape[1])
            index.add(vectors)
        if index is None:
            raise ValueError(f"{source}: holds no passage")
        faiss.write_index(index, str(partial / VECTORS))
        dense = {"model": model, "query_prefix": query_prefix, "passage_prefix": passage_prefix}
        about = {"format": FORMAT, "passages": index.ntotal, "source": source, "dense": dense}
        write_text(partial / ABOUT, json.dumps(about, indent=1))
        return index.ntotal


class DenseIndex:
    """An index that `build_dense` wrote. Its vectors are mapped. Threads may share it."""

    def __init__(self, folder: Path) -> None:
        """Open it.

        Raises:
            MissingLibrary: faiss or sentence-transformers is missing.
            BadData: it is damaged.
        """
        faiss, about = _faiss(), read_about(folder)
        self._query_prefix = about["dense"]["query_prefix"]
        self._encoder = _encoder(about["dense"]["model"])
        # Tokenizers are not to be used by two threads at once.
        self._lock = threading.Lock()
        try:
            self.passages = StoredPassages(folder)
            self._index = faiss.read_index(str(folder / VECTORS), faiss.IO_FLAG_MMAP)
        # faiss raises a RuntimeError where a file is damaged.
        except (OSError, ValueError, RuntimeError) as error:
            text = " ".join(str(error).split())
            raise BadData(f"{folder}: a damaged index ({text}); build it again") from None
        if not self._index.ntotal == len(self.passages) == about["passages"]:
            raise BadData(f"{folder}: vectors and passages differ in number; build it again")

    def hits(self, query: str, top_k: int) -> list[tuple[int, float]]:
        """Number and score of at most `top_k` passages, best first."""
        with self._lock:
            vectors = encoded(self._encoder, [f"{self._query_prefix}{query}"])
        scores, numbers = self._index.search(vectors, min(top_k, len(self.passages)))
        return [(int(n), float(s)) for n, s in zip(numbers[0], scores[0], strict=True) if n >= 0]


def encoded(encoder: Any, texts: Sequence[str]) -> np.ndarray:
    """float32 vectors of length 1, `[texts, width]`."""
    vectors = encoder.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)
    return np.ascontiguousarray(vectors, dtype=np.float32)


def _batches(texts: Iterator[str]) -> Iterator[list[str]]:
    while batch := list(islice(texts, BATCH)):
        yield batch


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise MissingLibrary("--dense needs faiss: pip install faiss-cpu") from None
    return faiss


def _encoder(model: str) -> Any:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        remedy = "pip install sentence-transformers"
        raise MissingLibrary(f"--dense needs sentence-transformers: {remedy}") from None
    return SentenceTransformer(model)
