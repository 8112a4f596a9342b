"""The server speaks `/retrieve` as the environments' client does, over a real connection."""

import json
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import uvicorn
from fastapi.testclient import TestClient

from megatron_trace.envs.retrieval.bm25 import SearchIndex
from megatron_trace.envs.retrieval.client import Limits, SearchServer
from megatron_trace.envs.retrieval.passages import Passage, RetrieverFailed

CORPUS = [
    {"id": "0", "contents": '"Lyon"\nA city in France.'},
    {"id": "1", "title": 'The "Big" Apple', "text": "A city in\nthe States."},
    {"id": "2", "title": "France", "text": "A country. Its capital is Paris."},
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in CORPUS))
    return path


@pytest.fixture
def tool(load_tool: Any) -> ModuleType:
    return load_tool("serve_retriever")


@pytest.fixture
def index(tool: ModuleType, corpus: Path, tmp_path: Path) -> Path:
    arguments = ["--corpus", str(corpus), "--index", str(tmp_path / "index"), "--build-only"]
    assert tool.main(arguments) == 0
    return tmp_path / "index"


@pytest.fixture
def url(tool: ModuleType, index: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    app = tool.make_app(SearchIndex.from_folder(index))
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}/retrieve"
    server.should_exit = True
    thread.join(10)


def test_the_environments_client_finds_what_the_folder_holds(url: str, index: Path) -> None:
    client, folder = SearchServer(url, Limits(retries=0)), SearchIndex.from_folder(index)
    for query in ("city", "capital of France", "big apple", "Lyon"):
        assert client.search(query, 2) == folder.search(query, 2) != ()
    assert client.search("zzz", 2) == ()
    assert Passage('The "Big" Apple', "A city in\nthe States.") in client.search("city", 3)
    with urllib.request.urlopen(url.replace("/retrieve", "/health"), timeout=10) as answer:
        assert json.load(answer) == {"passages": 3}


def test_a_wrong_path_is_a_failure_that_is_not_tried_again(url: str) -> None:
    with pytest.raises(RetrieverFailed, match=r"status 404: .*Not Found.*\(1 try\)"):
        SearchServer(url + "/x", Limits()).search("city", 2)


def test_the_answer_is_in_search_r1s_form(tool: ModuleType, index: Path) -> None:
    client = TestClient(tool.make_app(SearchIndex.from_folder(index)))
    asked = {"queries": ["Lyon", "zzz"], "topk": 1, "return_scores": True}
    (first,), nothing = client.post("/retrieve", json=asked).json()["result"]
    assert first["document"]["contents"] == '"Lyon"\nA city in France.'
    assert isinstance(first["score"], float) and nothing == []
    (plain,) = client.post("/retrieve", json={"queries": ["Lyon"], "topk": 1}).json()["result"]
    assert plain[0]["id"] == "0" and "document" not in plain[0]


@pytest.mark.parametrize(
    "asked",
    [{}, {"queries": "Lyon"}, {"queries": ["a"], "topk": 0}, {"queries": ["a"] * 513},
     {"queries": ["a"], "topk": 10**6}],
)  # fmt: skip
def test_a_wrong_request_is_refused(tool: ModuleType, index: Path, asked: Any) -> None:
    client = TestClient(tool.make_app(SearchIndex.from_folder(index)))
    assert client.post("/retrieve", json=asked).status_code == 422


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "holds no index; give --corpus to build it"),
        (["--corpus", "nowhere-*.jsonl"], r"nowhere-*.jsonl"),
        (["--corpus", "BAD"], "line 2: has no title"),
        (["--corpus", "CORPUS", "--dense", "m"], "pip install sentence-transformers"),
    ],
)
def test_what_cannot_be_served_is_one_line(
    tool: ModuleType, corpus: Path, tmp_path: Path, capsys: Any, monkeypatch: Any,
    arguments: list[str], said: str,
) -> None:  # fmt: skip
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"title": "T", "text": "two words"}\n{"id": 3}\n')
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    places = {"CORPUS": str(corpus), "BAD": str(bad)}
    arguments = [places.get(one, one) for one in arguments]
    assert tool.main(["--index", str(tmp_path / "index"), *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and said in error and error.count("\n") == 1
    assert not (tmp_path / "index").exists()
