"""A server that is slow, dead, lying or flooding is a failure; an empty result is an answer."""

import json
import socket
import threading
import time
from typing import Any

import pytest

from megatron_trace.envs.retrieval import client
from megatron_trace.envs.retrieval.cache import PassageCache
from megatron_trace.envs.retrieval.client import Limits, SearchServer, sendable, wait_s
from megatron_trace.envs.retrieval.passages import Passage, RetrieverFailed
from tests.unit.envs.retrieval.server import hits, serving


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "FIRST_WAIT_S", 0.001)


def ask(url: str, retries: int = 0, timeout_s: float = 5.0, top_k: int = 3) -> Any:
    return SearchServer(url, Limits(timeout_s, retries)).search("Who ?", top_k)


def test_the_request_is_search_r1s_and_the_passages_come_in_the_servers_order() -> None:
    with serving(hits("b", "a")) as server:
        assert ask(server.url) == (Passage("Tb", "b"), Passage("Ta", "a"))
    assert server.asked == [{"queries": ["Who ?"], "topk": 3, "return_scores": True}]


@pytest.mark.parametrize(
    ("hit", "passage"),
    [
        ({"document": {"title": "T", "text": "x"}, "score": 1}, Passage("T", "x")),
        ({"title": "T", "text": "x"}, Passage("T", "x")),
        ({"document": {"id": 3, "contents": '"T"\nx\ny'}}, Passage("T", "x\ny")),
        ({"contents": 'He said "T"\nx'}, Passage('He said "T"', "x")),
        ({"contents": "no title"}, Passage("", "no title")),
        ({"document": {"text": "x"}}, Passage("", "x")),
        ({"title": None, "text": "half \ud800"}, Passage("", "half ?")),
    ],
)
def test_documents_come_in_several_forms(hit: Any, passage: Passage) -> None:
    with serving(json.dumps({"result": [[hit]]}).encode()) as server:
        assert ask(server.url) == (passage,)


def test_nothing_found_is_an_answer_and_too_much_is_cut() -> None:
    with serving(hits()) as server:
        assert ask(server.url) == ()
    with serving(hits("a", "b", "c")) as server:
        assert ask(server.url, top_k=2) == (Passage("Ta", "a"), Passage("Tb", "b"))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"<html>Bad Gateway</html>", "answers what is no JSON: '<html>Bad Gateway</html>'"),
        (b"", "answers what is no JSON: ''"),
        (b"\xff\xfe", "answers what is no JSON"),
        (b"[" * 100_000, "answers what is no JSON"),
        (b"null", "has no list `result`, but is None"),
        (b'{"error": "out of memory"}', "has no list `result`"),
        (b'{"result": []}', "holds results of 0 queries, where 1 was asked"),
        (b'{"result": [[], []]}', "holds results of 2 queries"),
        (b'{"result": [{"a": 1}]}', "which is no list"),
        (b'{"result": [["text"]]}', "a hit is 'text', which is no document"),
        (b'{"result": [[{"document": {"title": "T"}}]]}', "has no text and no contents"),
        (b'{"result": [[{"document": {"text": 7}}]]}', "has no text and no contents"),
        (b'{"result": [[{"document": {"text": " "}}]]}', "holds a document that has no word"),
        ((500, b"oh"), "answers with status 500: 'oh'"),
        ((302, b""), "answers with status 302"),
    ],
)
def test_what_cannot_be_used_is_tried_again_and_then_a_failure(answer: Any, said: str) -> None:
    with serving(answer) as server, pytest.raises(RetrieverFailed) as caught:
        ask(server.url, retries=1)
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert server.url in str(caught.value)
    assert len(server.asked) == (1 if "302" in said else 2)


@pytest.mark.parametrize(("status", "tries"), [(404, 1), (422, 1), (429, 3), (503, 3)])
def test_only_what_may_pass_is_tried_again(status: int, tries: int) -> None:
    with serving((status, b"no")) as server, pytest.raises(RetrieverFailed, match=rf"\({tries} tr"):
        ask(server.url, retries=2)
    assert len(server.asked) == tries


def test_a_server_that_fails_twice_and_then_works_has_worked() -> None:
    with serving(lambda _, number: (503, b"") if number < 3 else (200, hits("a"))) as server:
        assert ask(server.url, retries=2) == (Passage("Ta", "a"),)
    assert len(server.asked) == 3


def test_a_dead_server_is_a_failure() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/retrieve"
    with pytest.raises(RetrieverFailed, match=r"does not answer \(.*refused.*2 tries"):
        ask(url, retries=1)


def test_a_server_that_hangs_up_is_a_failure() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        threading.Thread(target=lambda: server.accept()[0].close(), daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/retrieve"
        with pytest.raises(RetrieverFailed, match="does not answer"):
            ask(url)


def test_a_slow_server_is_a_failure() -> None:
    def answer(request: Any, number: int) -> tuple[int, bytes]:
        time.sleep(1)
        return 200, hits("a")

    with serving(answer) as server, pytest.raises(RetrieverFailed, match="does not answer"):
        ask(server.url, timeout_s=0.1)


def test_a_server_that_drips_is_stopped_at_the_limit() -> None:
    with serving(hits("a" * 200)) as server:
        server.drip_s = 0.05
        begin = time.monotonic()
        with pytest.raises(RetrieverFailed, match=r"has not answered within 0.3 s"):
            ask(server.url, timeout_s=0.3)
    assert time.monotonic() - begin < 3


def test_a_flood_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MOST_BYTES", 2**16)
    too_much = pytest.raises(RetrieverFailed, match="answers with more than 65,536 bytes")
    with serving(hits("a" * 2**22)) as server, too_much:
        ask(server.url)


def test_no_more_requests_than_allowed_are_under_way() -> None:
    def answer(request: Any, number: int) -> tuple[int, bytes]:
        time.sleep(0.05)
        return 200, hits("a")

    with serving(answer) as server:
        shared = SearchServer(server.url, Limits(30.0, 0, requests=2))
        threads = [threading.Thread(target=shared.search, args=(f"q{n}", 1)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(server.asked) == 8 and server.most_at_once == 2


def test_what_was_answered_is_not_asked_again_but_for_nothing(tmp_path: Any) -> None:
    with serving(lambda request, _: (200, hits(*request["queries"][0].split()))) as server:
        for _ in range(2):
            cache = PassageCache(tmp_path / "answers.sqlite")
            shared = SearchServer(server.url, Limits(), cache)
            assert shared.search("a b", 2) == (Passage("Ta", "a"), Passage("Tb", "b"))
        shared.search("a b", 1)
        assert len(server.asked) == 2
        server.answer = lambda *_: (200, hits())
        assert shared.search("c", 1) == shared.search("c", 1) == ()
        assert cache.get(server.url, "c", 1) is None
    assert len(server.asked) == 4


@pytest.mark.parametrize(
    ("query", "sent"),
    [("  a \0\n b ", "a b"), ("half \ud800", "half ?"), ("x" * 9_000, "x" * 2_000), (" \n", "")],
)
def test_whatever_the_policy_writes_can_be_sent(query: str, sent: str) -> None:
    assert sendable(query) == sent
    with serving(hits("a")) as server:
        found = SearchServer(server.url, Limits(retries=0)).search(query, 1)
    assert [one["queries"] for one in server.asked] == ([[sent]] if sent else [])
    assert bool(found) == bool(sent)


def test_waits_double_up_to_a_limit_and_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "FIRST_WAIT_S", 1.0)
    for tries, most in [(1, 1), (2, 2), (5, 16), (9, 30), (900, 30)]:
        waits = {wait_s(tries) for _ in range(20)}
        assert most / 2 <= min(waits) < max(waits) <= most
