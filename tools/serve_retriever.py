"""A server that speaks Search-R1's `/retrieve`, over a corpus of passages.

    python tools/serve_retriever.py --corpus 'data/wiki/*.jsonl' --index data/wiki_bm25 --build-only
    python tools/serve_retriever.py --index data/wiki_bm25 --port 8000
    curl localhost:8000/retrieve -H 'Content-Type: application/json' \\
        -d '{"queries": ["capital of France"], "topk": 3, "return_scores": true}'

A row of the corpus (.jsonl, .jsonl.gz, .json, .parquet, .tar) has `title` and `text`, or `contents`
as Search-R1 writes them. The index is built once. With --dense MODEL it holds vectors of a model of
sentence-transformers, which must be installed. Otherwise it is BM25, mapped: an environment on the
same machine can open the folder itself (`retriever: data/wiki_bm25`).

The server asks for no name and no password: it listens on 127.0.0.1 unless --host says otherwise.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import uvicorn
from dense_index import DenseIndex, MissingLibrary, build_dense, is_dense
from fastapi import FastAPI
from pydantic import BaseModel, Field

from megatron_trace.envs.retrieval.bm25 import SearchIndex
from megatron_trace.envs.retrieval.index_folder import ABOUT, build_index
from megatron_trace.envs.retrieval.passages import Passage, passage_of_row
from megatron_trace.files.problems import BadData, refuse
from megatron_trace.files.rows import read_rows

MOST_QUERIES, MOST_PASSAGES = 512, 1_000
"""In a request."""


class Index(Protocol):
    """What is served."""

    @property
    def passages(self) -> Sequence[Passage]:
        """All of them, by number."""
        ...

    def hits(self, query: str, top_k: int, /) -> Sequence[tuple[int, float]]:
        """Number and score of at most `top_k` passages, best first."""
        ...


class Request(BaseModel):
    """The body of a request to `/retrieve`."""

    queries: list[str] = Field(max_length=MOST_QUERIES)
    topk: int = Field(3, ge=1, le=MOST_PASSAGES)
    return_scores: bool = False


def make_app(index: Index) -> FastAPI:
    """The server's paths: `/retrieve`, and `/health` for whoever waits for it."""
    app = FastAPI(title="retriever")

    def found(query: str, request: Request) -> list[dict[str, Any]]:
        documents = []
        for number, score in index.hits(query, request.topk):
            title, text = index.passages[number]
            contents = f'"{title}"\n{text}'
            one = {"id": str(number), "title": title, "text": text, "contents": contents}
            documents.append({"document": one, "score": score} if request.return_scores else one)
        return documents

    # Not `async`: FastAPI runs these in threads, so that one search does not stop all others.
    @app.post("/retrieve")
    def retrieve(request: Request) -> dict[str, Any]:
        return {"result": [found(query, request) for query in request.queries]}

    @app.get("/health")
    def health() -> dict[str, Any]:
        return {"passages": len(index.passages)}

    return app


def read_corpus(pattern: str) -> Iterator[Passage]:
    """The passages of data files, in their order.

    Raises:
        FileNotFoundError: no file matches.
        BadData: something cannot be read, or is no passage; told after the last row.
    """
    problems: list[str] = []
    for row in read_rows(pattern, problems):
        try:
            yield passage_of_row(row.content)
        except ValueError as error:
            problems.append(f"{row.place}: {error}")
    refuse(problems)


def build(args: argparse.Namespace) -> None:
    """Build the index of `--corpus`, and say what it took.

    Raises:
        FileNotFoundError, BadData, ValueError, MissingLibrary: it cannot be built.
    """
    begin = time.monotonic()
    corpus = read_corpus(args.corpus)
    if args.dense:
        count = build_dense(
            args.index, corpus, args.corpus, args.dense, args.query_prefix, args.passage_prefix
        )
    else:
        stopwords = None if args.stopwords == "none" else args.stopwords
        count = build_index(args.index, corpus, args.corpus, stopwords)
    size = sum(file.stat().st_size for file in args.index.iterdir())
    taken = time.monotonic() - begin
    print(f"{args.index}: {count:,} passages, {size / 2**20:,.1f} MiB, built in {taken:.1f} s")


def main(argv: Sequence[str] | None = None) -> int:
    """Build or open the index, then serve it."""
    args = _arguments(argv)
    try:
        if args.build_only or not (args.index / ABOUT).exists():
            if not args.corpus:
                raise BadData(f"{args.index}: holds no index; give --corpus to build it")
            build(args)
        if args.build_only:
            return 0
        begin = time.monotonic()
        dense = is_dense(args.index)
        index: Index = DenseIndex(args.index) if dense else SearchIndex.from_folder(args.index)
        print(f"{args.index}: opened in {time.monotonic() - begin:.1f} s")
    except (FileNotFoundError, BadData, ValueError, MissingLibrary) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    uvicorn.run(make_app(index), host=args.host, port=args.port, log_level="warning")
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--index", type=Path, required=True, help="folder of the index")
    parser.add_argument("--corpus", default="", help="passages, where the index is to be built")
    parser.add_argument("--build-only", action="store_true", help="build the index, serve nothing")
    parser.add_argument(
        "--stopwords",
        default="none",
        choices=("none", "english"),
        help="words that BM25 leaves out; english makes searches of millions of passages faster",
    )
    parser.add_argument("--dense", default="", metavar="MODEL", help="vectors instead of BM25")
    parser.add_argument("--query-prefix", default="query: ", help="of the dense model")
    parser.add_argument("--passage-prefix", default="passage: ", help="of the dense model")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0: other machines may ask too")
    parser.add_argument("--port", type=int, default=8000)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
