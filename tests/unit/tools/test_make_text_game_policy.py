"""The demonstrator of text_game's start policy, and the shipped folder."""

import random
from pathlib import Path
from typing import Any

import build_text_games
import pytest
import text_game_demonstrator as demonstrator
from text_game_demonstrator import Play

from megatron_trace.data.tasks import load_tasks
from megatron_trace.models.chat import load_codec
from megatron_trace.models.renderer import make_renderer

SHIPPED = Path(__file__).parents[3] / "examples/text_game/start_policy"
PLAY = Play("Put the key into the key chest.", (("insert key into key chest", ""),))
NAMES = {"key": "thing", "key chest": "container"}


@pytest.fixture(scope="module")
def tool(load_tool: Any) -> Any:
    return load_tool("make_text_game_policy")


@pytest.fixture(scope="module")
def games(tmp_path_factory: Any) -> Path:
    out = tmp_path_factory.mktemp("games")
    line = f"--out {out} --count 2 --heldout 0 --quest 2 --rooms 1 --objects 2"
    assert build_text_games.main(line.split()) == 0
    return out / "train.jsonl"


def test_who_never_errs_follows_the_walkthrough(tool: Any, games: Path) -> None:
    tasks = load_tasks(str(games))
    plays = tool.plays_of(tasks, 0.0, random.Random(0))
    walkthroughs = [task["walkthrough"] for task in tasks for _ in range(tool.PLAYS)]
    assert [[command for command, _ in play.turns] for play, _ in plays] == walkthroughs
    for play, names in plays:
        first, last = play.turns[0][1], play.turns[-1][1]
        assert first and not last
        assert any(name in play.prompt for name in names)


def test_who_always_errs_never_moves_and_ends_at_the_last_turn(tool: Any, games: Path) -> None:
    for play, _ in tool.plays_of(load_tasks(str(games)), 1.0, random.Random(0)):
        assert len(play.turns) <= tool.MAX_TURNS
        assert not any(command.startswith("go ") for command, _ in play.turns)


def test_renaming_is_consistent_and_the_longest_name_goes_first() -> None:
    pool = {"thing": ["lamp"], "container": ["old box"]}
    renamed = demonstrator.renamed(PLAY, NAMES, pool, random.Random(0))
    assert renamed.prompt == "Put the lamp into the old box."
    assert renamed.turns == (("insert lamp into old box", ""),)


def test_two_things_keep_two_names() -> None:
    names, pool = {"key": "thing", "chest": "thing"}, {"thing": ["cup", "hat"]}
    play = Play("key chest", ())
    for seed in range(20):
        renamed = demonstrator.renamed(play, names, pool, random.Random(seed))
        assert sorted(renamed.prompt.split()) == ["cup", "hat"]


def test_the_policy_is_written(
    tool: Any, games: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool, "GAMES", str(games))
    monkeypatch.setattr(tool, "VOCABULARY", 320)
    monkeypatch.setattr("sys.argv", ["x"])
    out = tmp_path / "new"
    tool.make_policy(tool.arguments(None, out, noise=0.3, steps=2, peak=1e-3, tokens=256))
    names = {file.name for file in out.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names


def test_the_shipped_policy_is_small_and_sees_whole_words(tool: Any) -> None:
    assert sum(file.stat().st_size for file in SHIPPED.iterdir()) <= 2_500_000
    codec = load_codec(SHIPPED)
    make_renderer(codec)
    assert len(codec.tokenizer) == tool.VOCABULARY
    assert len(codec.encode("open chest")) == 2
