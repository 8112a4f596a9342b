"""Text games: commands in, answers out, continued by the commands."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import build_text_games
import pytest

from megatron_trace.config import EnvironmentConfig
from megatron_trace.envs import Reply, make_environments
from megatron_trace.envs.contract import check_contract

EIGHT_AT_ONCE = """
import sys
from concurrent.futures import ThreadPoolExecutor
from megatron_trace.envs.builtin.text_game import TextGame

start = TextGame.load(TextGame.Options())
with ThreadPoolExecutor(8) as threads:
    list(threads.map(start, [sys.argv[1]] * 8))
"""

MAKE = make_environments(EnvironmentConfig("text_game", 9))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> Path:
    out = tmp_path_factory.mktemp("games")
    arguments = ["--count", "1", "--heldout", "1", "--quest", "3", "--rooms", "2"]
    assert build_text_games.main(["--out", str(out), *arguments]) == 0
    return out


@pytest.fixture(scope="module")
def task(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "train.jsonl").read_text())


def test_the_walkthrough_wins_and_the_contract_is_kept(task: dict[str, Any]) -> None:
    MAKE().check_task(task)
    commands = [Reply(command) for command in task["walkthrough"]]
    assert len(commands) > 1
    check_contract(MAKE, task, [Reply("look"), Reply("sing"), *commands])
    episode = MAKE()
    system, first = episode.reset(task)
    assert system["role"] == "system" and task["objective"] in first["content"]
    # The line that the game draws below its prompt has the room's name too.
    assert first["content"].count("-=") == 1
    results = [episode.step(command) for command in commands]
    assert [result.done for result in results] == [False] * (len(commands) - 1) + [True]
    assert results[-1].reward == 1.0
    assert not str(results[0].observation).endswith(">")


def test_a_game_that_is_not_won_is_worth_nothing(task: dict[str, Any]) -> None:
    episode = make_environments(EnvironmentConfig("text_game", 2))()
    episode.reset(task)
    assert not episode.step(Reply("look")).done
    assert episode.step(Reply("look")).done
    episode.reset(task)
    assert episode.step(Reply("")).malformed


def test_games_that_start_at_the_same_time_do_not_disturb_each_other(task: dict[str, Any]) -> None:
    # In a process that has read no game yet: what TextWorld has read once it remembers.
    subprocess.run([sys.executable, "-c", EIGHT_AT_ONCE, task["game"]], check=True)


@pytest.mark.parametrize("command", ["save", "look then SAVE", "script", "transcripts", "restore"])
def test_no_command_writes_or_reads_a_file(
    task: dict[str, Any], command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task | {"game": str(Path(task["game"]).absolute())}
    monkeypatch.chdir(tmp_path)
    episode = MAKE()
    episode.reset(task)
    assert not episode.step(Reply(command)).done
    assert not list(tmp_path.iterdir())


# A backslash made the game wait for ever; with control characters it ended the process at times.
@pytest.mark.parametrize("command", ["\\x", "key3\ufffd\u0011" * 8, "take é", "x" * 5_000])
def test_odd_characters_do_no_harm(task: dict[str, Any], command: str) -> None:
    episode = MAKE()
    episode.reset(task)
    result = episode.step(Reply(command))
    assert not result.done and result.observation


def test_what_is_made_already_is_kept(folder: Path, task: dict[str, Any]) -> None:
    made = Path(task["game"]).stat().st_mtime_ns
    arguments = ["--count", "1", "--heldout", "1", "--quest", "3", "--rooms", "2"]
    build_text_games.main(["--out", str(folder), *arguments])
    assert Path(task["game"]).stat().st_mtime_ns == made
    assert json.loads((folder / "train.jsonl").read_text()) == task


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"game": 3}, "game must be the path of a .z8 file, not 3"),
        ({"game": "none.z8"}, "no such game: none.z8"),
        ({"sha256": "00"}, "is another game than the task's"),
    ],
)
def test_a_task_without_its_game_is_refused(
    task: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        MAKE().check_task(task | change)
