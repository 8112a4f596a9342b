"""The live page follows a run's files, and nobody but this machine's own browser reads it."""

import sys
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.unit.report.fake_run import decode, fake_run


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return fake_run(tmp_path / "run", steps=2)


@pytest.fixture
def get(load_tool, run_dir) -> Iterator[Callable[..., tuple[int, str]]]:
    """Status and text of what the server answers."""
    tool = load_tool("watch")
    server = tool.serve(tool.LivePage(run_dir, decode), 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def get(path: str, host: str = "127.0.0.1") -> tuple[int, str]:
        connection = HTTPConnection(*server.server_address[:2], timeout=30)
        connection.request("GET", path, headers={"Host": host})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()

    yield get
    server.shutdown()
    server.server_close()


def test_the_page_is_made_again_when_a_step_has_ended(get, run_dir) -> None:
    status, before = get("/")
    assert status == 200 and "2 of 2 steps" in before and "Step 2." in before
    _, version = get("/version")
    assert f'const shown = "{version}"' in before
    assert get("/?again")[1] == before
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "effective_ratio": 0.5}\n')
    assert get("/version")[1] != version
    assert "3 of 2 steps" in get("/")[1]


def test_a_run_without_a_step_has_a_page(get, run_dir) -> None:
    (run_dir / "metrics.jsonl").unlink()
    assert get("/version") == (200, "no step yet")
    status, page = get("/")
    assert status == 200 and "0 of 2 steps" in page


def test_a_page_that_cannot_be_made_says_why_and_the_next_one_is_made(get, run_dir) -> None:
    trees = run_dir / "trees" / "step_00002.jsonl.gz"
    good = trees.read_bytes()
    trees.write_bytes(good[:100])
    status, text = get("/")
    assert status == 500 and "step_00002.jsonl.gz" in text
    trees.write_bytes(good)
    assert get("/")[0] == 200


def test_a_name_of_somebody_else_is_refused(get) -> None:
    # A page elsewhere can make its own name point to 127.0.0.1.
    assert get("/", host="elsewhere.example:8100")[0] == 403
    assert get("/", host="localhost:8100")[0] == 200
    assert get("/trees")[0] == 404


def test_what_is_no_run_and_a_port_that_is_taken_are_one_line(
    load_tool, monkeypatch, run_dir, tmp_path
) -> None:
    tool = load_tool("watch")
    monkeypatch.setattr(sys, "argv", ["watch.py", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"has no config\.yaml; name a run's folder"):
        tool.main()
    with tool.serve(tool.LivePage(run_dir, decode), 0) as taken:
        port = str(taken.server_port)
        monkeypatch.setattr(sys, "argv", ["watch.py", str(run_dir), "--port", port])
        monkeypatch.setattr(tool, "decoder", lambda *_: decode)
        with pytest.raises(SystemExit, match=f"--port {port}: .* choose another port"):
            tool.main()
