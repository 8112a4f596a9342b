"""`SearchServer`: a client of any server that speaks Search-R1's `/retrieve`.

    POST {"queries": ["Who ..."], "topk": 3, "return_scores": true}
    {"result": [[{"document": {"contents": "\\"Title\\"\\ntext"}, "score": 0.9}, ...]]}

A server that is slow, dead, or says what cannot be used is never an observation: it ends in
`RetrieverFailed`. An empty result is one.
"""

import json
import random
import threading
import time
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any

import urllib3
from urllib3.exceptions import HTTPError

from megatron_trace.envs.retrieval.cache import PassageCache
from megatron_trace.envs.retrieval.passages import Passage, RetrieverFailed, passages_of_answer

FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0
"""Wait before the second try; it doubles with every try, up to the longest."""

MOST_BYTES = 4 * 2**20
"""Of an answer; a longer one is a failure."""

QUERY_CHARS = 2_000
"""A longer query is cut: servers refuse what is too long, which would fail the rollout."""

MAY_PASS = (408, 425, 429)
"""Refusals of a server that may answer later; so do all from 500 on."""

PROBE = "What is the capital of France?"


@dataclass(frozen=True)
class Limits:
    """How a server is asked.

    Attributes:
        timeout_s: seconds of one try.
        retries: tries after the first.
        requests: most requests of this process at the same time.
    """

    timeout_s: float = 20.0
    retries: int = 4
    requests: int = 16


class SearchServer:
    """A retriever behind a URL. Threads may share it."""

    def __init__(self, url: str, limits: Limits, cache: PassageCache | None = None) -> None:
        """Nothing is sent yet.

        Args:
            url: with its path, such as http://host:8000/retrieve.
            cache: keeps answers, but for empty ones: a server may be about to load its corpus.
        """
        self.url, self._limits, self._cache = url, limits, cache
        self._slots = threading.BoundedSemaphore(limits.requests)
        self._pool = urllib3.PoolManager(maxsize=limits.requests)

    def search(self, query: str, top_k: int) -> tuple[Passage, ...]:
        """At most `top_k` passages, best first.

        Raises:
            RetrieverFailed: no try brought an answer.
        """
        query = sendable(query)
        if not query:
            return ()
        if self._cache and (known := self._cache.get(self.url, query, top_k)):
            return known
        found = self.ask(query, top_k)
        if self._cache and found:
            self._cache.put(self.url, query, top_k, found)
        return found

    def ask(self, query: str, top_k: int) -> tuple[Passage, ...]:
        """As `search`, but always from the server."""
        failure = None
        tries = 0
        while tries <= self._limits.retries:
            if tries:
                time.sleep(wait_s(tries))
            tries += 1
            try:
                with self._slots:
                    return self._try(query, top_k)
            except RetrieverFailed as error:
                failure = error
                if not error.may_pass:
                    break
        raise RetrieverFailed(f"{self.url}: {failure} ({tries} {'try' if tries == 1 else 'tries'})")

    def _try(self, query: str, top_k: int) -> tuple[Passage, ...]:
        asked = {"queries": [query], "topk": top_k, "return_scores": True}
        status, body = self._post(json.dumps(asked).encode())
        if status != 200:
            may_pass = status in MAY_PASS or status >= 500
            raise RetrieverFailed(f"answers with status {status}: {_begin(body)}", may_pass)
        try:
            answer: Any = json.loads(body)
        except (ValueError, RecursionError):
            raise RetrieverFailed(f"answers what is no JSON: {_begin(body)}") from None
        try:
            return passages_of_answer(answer, top_k)
        except ValueError as error:
            raise RetrieverFailed(f"its answer {error}") from None

    def _post(self, body: bytes) -> tuple[int, bytes]:
        """Status and body of the answer."""
        limit = self._limits.timeout_s
        end = time.monotonic() + limit
        # Without `retries` the library follows no redirection either.
        try:
            with self._pool.request(
                "POST", self.url, body=body, headers={"Content-Type": "application/json"},
                timeout=limit, retries=False, preload_content=False,
            ) as response:  # fmt: skip
                content = bytearray()
                while chunk := response.read1(2**16):
                    content += chunk
                    if len(content) > MOST_BYTES:
                        raise RetrieverFailed(f"answers with more than {MOST_BYTES:,} bytes")
                    # The library starts its limit again with whatever arrives.
                    if time.monotonic() > end:
                        raise RetrieverFailed(f"has not answered within {limit:g} s")
                return response.status, bytes(content)
        except (HTTPError, HTTPException, OSError) as error:
            text = " ".join(f"{type(error).__name__}: {error}".split())
            raise RetrieverFailed(f"does not answer ({text[:200]})") from None


def sendable(query: str) -> str:
    """A query that any server can read, whatever the policy wrote: cut, and without half characters."""
    text = query.replace("\0", " ").encode(errors="replace").decode()
    return " ".join(text.split())[:QUERY_CHARS]


def wait_s(tries: int) -> float:
    """Seconds before the next try; random, so that many clients do not come back together."""
    return min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** (tries - 1)) * random.uniform(0.5, 1.0)


def _begin(body: bytes) -> str:
    return repr(" ".join(body[:400].decode(errors="replace").split())[:100])
