"""What an environment searches, as options: a corpus, an index on the disk, or a server."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_trace.config import SettingError, setting
from megatron_trace.envs.retrieval.bm25 import SearchIndex
from megatron_trace.envs.retrieval.cache import PassageCache
from megatron_trace.envs.retrieval.client import PROBE, Limits, SearchServer
from megatron_trace.envs.retrieval.index_folder import PASSAGES, read_about
from megatron_trace.envs.retrieval.passages import Retriever, RetrieverFailed
from megatron_trace.files.problems import BadData


@dataclass
class RetrieverOptions:
    """What is searched, and how a server is asked."""

    corpus: str = setting(
        "",
        "documents, indexed in every worker: .tar (WebDataset), .jsonl, .jsonl.gz, .json or .parquet "
        "files (path, glob or brace pattern)",
        files=True,
        or_else="retriever",
    )
    retriever: str = setting(
        "",
        "instead of the corpus: the URL of a server that speaks /retrieve, or the folder of an "
        "index (tools/serve_retriever.py)",
        free=True,
    )
    top_k: int = setting(3, "number of documents that a search shows", at_least=1)
    retriever_timeout_s: float = setting(
        20.0, "seconds of one request to the server", above=0, free=True
    )
    retriever_retries: int = setting(
        4,
        "how often a request is sent again, after 1 s, 2 s, ...; then the step fails",
        at_least=0,
        free=True,
    )
    retriever_requests: int = setting(
        16, "most requests of a worker at the same time", at_least=1, free=True
    )
    retriever_cache: str = setting(
        "", "file that keeps the server's answers, on each node's own disk; empty: none", free=True
    )


def open_retriever(options: Any, section: str) -> Retriever:
    """The retriever that `options`, which hold `RetrieverOptions`, name. A server is asked once.

    Args:
        section: dotted name of the options, for messages.

    Raises:
        SettingError: nothing is named, or two things; or the server does not answer.
        FileNotFoundError: no file matches `corpus`.
        BadData: corpus or index cannot be read or searched.
    """
    place, name = options.retriever, f"{section}.retriever"
    if not place:
        if not options.corpus:
            remedy = f"must name data files, or {name} the URL of a server"
            raise SettingError(f"{section}.corpus", options.corpus, remedy)
        return SearchIndex.from_shards(options.corpus)
    if options.corpus:
        raise SettingError(name, place, f"cannot be beside {section}.corpus; leave one out")
    if "://" in place:
        return _server(options, name)
    try:
        return SearchIndex.from_folder(place)
    except BadData as error:
        raise SettingError(name, place, str(error)) from None


def reads_of(options: Any, section: str) -> dict[str, Path | str]:
    """What searches depend on beside the settings; see `Environment.reads`.

    Of an index it is the passages, and the words that it leaves out: all else in the folder follows
    from them. What a server searches is not known here.

    Raises:
        SettingError: `retriever` names a folder that holds no index.
    """
    place = options.retriever
    if not place or "://" in place:
        return {}
    try:
        about = read_about(Path(place))
    except BadData as error:
        raise SettingError(f"{section}.retriever", place, str(error)) from None
    return {
        f"retriever/{PASSAGES}": Path(place) / PASSAGES,
        "retriever/stopwords": str(about.get("stopwords")),
    }


def _server(options: Any, name: str) -> SearchServer:
    url = options.retriever
    if not url.startswith(("http://", "https://")) or not url.split("://", 1)[1].strip("/"):
        raise SettingError(name, url, "must be http://HOST:PORT/retrieve, or a folder")
    limits = Limits(
        options.retriever_timeout_s, options.retriever_retries, options.retriever_requests
    )
    cache = PassageCache(Path(options.retriever_cache)) if options.retriever_cache else None
    server = SearchServer(url, limits, cache)
    # A server that is down would otherwise be noticed only when the engines have started.
    try:
        server.ask(PROBE, options.top_k)
    except RetrieverFailed as error:
        remedy = f"{error}; start the server, or correct the URL"
        raise SettingError(name, url, remedy) from None
    return server
