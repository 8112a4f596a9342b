"""Dense vectors of passages, by a model of sentence-transformers, which is optional.

The vectors are normalised, and the score is their inner product. The search is exact: it reads all
vectors, and 21 million passages of 768 numbers are 60 GiB. They are mapped.
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

VECTORS = "vectors.f32"
"""float32 [passages, width], row after row, without a header."""

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
        MissingLibrary: sentence-transformers is missing.
        BadData: there is no such model.
        ValueError: there is no passage.
    """
    encoder, count, width = _encoder(model), 0, 0
    with whole_folder(folder) as partial:
        texts = (f"{passage_prefix}{text}" for text in write_passages(partial, passages))
        with open(partial / VECTORS, "wb") as file:
            for batch in _batches(texts):
                vectors = encoded(encoder, batch)
                file.write(vectors.tobytes())
                count, width = count + len(vectors), vectors.shape[1]
        if not count:
            raise ValueError(f"{source}: holds no passage")
        dense = {
            "model": model, "query_prefix": query_prefix, "passage_prefix": passage_prefix,
            "width": width,
        }  # fmt: skip
        about = {"format": FORMAT, "passages": count, "source": source, "dense": dense}
        write_text(partial / ABOUT, json.dumps(about, indent=1))
    return count


class DenseIndex:
    """An index that `build_dense` wrote. Its vectors are mapped. Threads may share it."""

    def __init__(self, folder: Path) -> None:
        """Open it.

        Raises:
            MissingLibrary: sentence-transformers is missing.
            BadData: it is damaged, or its model is not there any more.
        """
        about = read_about(folder)
        try:
            dense = about["dense"]
            self.passages = StoredPassages(folder)
            shape = len(self.passages), dense["width"]
            vectors = np.memmap(folder / VECTORS, np.float32, "r").reshape(shape)
            if len(vectors) != about["passages"]:
                raise ValueError(f"{len(vectors)} passages, not {about['passages']}")
        except (OSError, ValueError, KeyError, TypeError) as error:
            text = " ".join(str(error).split())
            raise BadData(f"{folder}: a damaged index ({text}); build it again") from None
        # A plain array: the results of arithmetic on a `memmap` would be such as well.
        self._vectors = np.asarray(vectors)
        self._query_prefix = dense["query_prefix"]
        self._encoder = _encoder(dense["model"])
        # Tokenizers are not to be used by two threads at once.
        self._lock = threading.Lock()

    def hits(self, query: str, top_k: int) -> list[tuple[int, float]]:
        """Number and score of at most `top_k` passages, best first."""
        with self._lock:
            (vector,) = encoded(self._encoder, [f"{self._query_prefix}{query}"])
        scores = self._vectors @ vector
        kept = min(top_k, len(scores))
        best = np.argpartition(scores, -kept)[-kept:]
        best = best[np.lexsort((best, -scores[best]))]
        return [(int(number), float(scores[number])) for number in best]


def encoded(encoder: Any, texts: Sequence[str]) -> np.ndarray:
    """float32 vectors of length 1, `[texts, width]`."""
    vectors = encoder.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)
    return np.ascontiguousarray(vectors, dtype=np.float32)


def _batches(texts: Iterator[str]) -> Iterator[list[str]]:
    while batch := list(islice(texts, BATCH)):
        yield batch


def _encoder(model: str) -> Any:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        remedy = "pip install sentence-transformers"
        raise MissingLibrary(f"--dense needs sentence-transformers: {remedy}") from None
    try:
        return SentenceTransformer(model)
    except (OSError, ValueError) as error:
        text = " ".join(str(error).split())
        raise BadData(f"{model}: no model of sentence-transformers ({text[:200]})") from None
