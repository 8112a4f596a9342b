"""The cache of searches: shared by threads and processes, and never the end of a run."""

import logging
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from megatron_trace.envs.retrieval.cache import PassageCache
from megatron_trace.envs.retrieval.passages import Passage

FOUND = (Passage("T", "text"), Passage("", "ü \u2028"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "made" / "answers.sqlite"


def test_an_answer_is_found_by_url_query_and_number(path: Path) -> None:
    PassageCache(path).put("http://a", "q", 3, FOUND)
    again = PassageCache(path)
    assert again.get("http://a", "q", 3) == FOUND
    assert not any(
        again.get(*key)
        for key in [("http://b", "q", 3), ("http://a", "p", 3), ("http://a", "q", 2)]
    )


def test_threads_and_processes_write_at_the_same_time(path: Path) -> None:
    program = (
        "import sys; from megatron_trace.envs.retrieval.cache import PassageCache\n"
        "cache = PassageCache(sys.argv[1])\n"
        "for n in range(50): cache.put('u', f'{sys.argv[2]}-{n}', 1, (('T', 'x'),))\n"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", program, str(path), str(number)])
        for number in range(2)
    ]
    cache = PassageCache(path)

    def write(number: int) -> None:
        for n in range(50):
            cache.put("u", f"t{number}-{n}", 1, FOUND)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [process.wait(120) for process in processes] == [0, 0]
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT count(*) FROM answers").fetchone() == (300,)


def garbage(path: Path) -> None:
    path.write_bytes(b"no database at all" * 1_000)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def overwritten(path: Path) -> None:
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))


# A connection that is open still has the pages that were overwritten, and writes them again.
@pytest.mark.parametrize(
    ("damage", "opened"),
    [(garbage, True), (garbage, False), (cut, True), (cut, False), (overwritten, False)],
)
def test_a_damaged_file_is_replaced_and_told(
    path: Path, caplog: Any, damage: Any, opened: bool
) -> None:
    cache = PassageCache(path)
    for n in range(400):
        cache.put("u", f"q{n}", 1, (Passage("T", "x" * 200),))
    if not opened:
        cache = PassageCache(path)
    damage(path)
    with caplog.at_level(logging.WARNING):
        for n in range(400):
            cache.get("u", f"q{n}", 1)
            cache.put("u", f"q{n}", 1, FOUND)
    assert "replaced, as it is damaged" in caplog.text
    assert path.with_name("answers.sqlite.damaged").exists()
    assert PassageCache(path).get("u", "q399", 1) == FOUND


def test_a_file_that_another_process_has_replaced_is_left(path: Path) -> None:
    first, second = PassageCache(path), PassageCache(path)
    for n in range(400):
        first.put("u", f"q{n}", 1, (Passage("T", "x" * 200),))
    second.get("u", "q1", 1)
    garbage(path)
    first.get("u", "q1", 1)
    first.put("u", "q1", 1, FOUND)
    for n in range(400):
        second.get("u", f"q{n}", 1)
    assert second.get("u", "q1", 1) == FOUND


def test_a_place_that_cannot_be_written_costs_only_time(tmp_path: Path, caplog: Any) -> None:
    (tmp_path / "file").touch()
    cache = PassageCache(tmp_path / "file" / "answers.sqlite")
    for _ in range(3):
        cache.put("u", "q", 1, FOUND)
        assert cache.get("u", "q", 1) is None
    assert len([one for one in caplog.records if "does not serve" in one.message]) == 1
