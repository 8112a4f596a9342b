"""The demonstrator of the example's start policy, a run of its maker, and the shipped folder."""

import random
import sys
from pathlib import Path

import cloning
import pytest
from cloning_tools import Demonstrator
from transformers import AutoTokenizer

from megatron_trace.config import EnvironmentConfig
from megatron_trace.envs import make_environments
from megatron_trace.models.chat import TextCodec
from megatron_trace.models.renderer import make_renderer

SHIPPED = Path(__file__).parents[3] / "examples/environment/start_policy"


@pytest.fixture(scope="module")
def tool(load_tool):
    return load_tool("make_shop_policy")


@pytest.fixture(scope="module")
def shipped():
    return AutoTokenizer.from_pretrained(SHIPPED)


def wins(tool, noise, rng) -> bool:
    task = tool.draw_task(rng)
    return list(tool.turns(task, noise, rng))[-1] == str(task["answer"])


def test_the_right_buyer_always_wins(tool) -> None:
    rng = random.Random(0)
    assert all(wins(tool, 0.0, rng) for _ in range(100))


def test_the_buyer_that_errs_wins_as_often_as_neither_error_comes(tool) -> None:
    rng, plays = random.Random(0), 3_000
    won = sum(wins(tool, 0.3, rng) for _ in range(plays)) / plays
    # A misread number is right by chance, once in eleven times or once in eight.
    assert 0.7**2 < won < 0.7**2 + 0.06


def test_whatever_a_drawn_episode_says_is_whole_tokens_of_the_shipped_policy(tool, shipped) -> None:
    rng = random.Random(0)
    new_episode = make_environments(EnvironmentConfig(str(tool.SHOP), max_turns=4))
    lengths = set()
    for _ in range(40):
        task = tool.draw_task(rng)
        played = Demonstrator(shipped).play(new_episode(), task, tool.turns(task, 0.0, rng))
        lengths.add(len(played.whole()[0]))
    # Items and numbers are one token each.
    assert len(lengths) == 1


def test_the_shipped_policy_is_small_and_calls_tools_as_qwen3_does(shipped) -> None:
    assert sum(file.stat().st_size for file in SHIPPED.iterdir()) <= 2_500_000
    assert make_renderer(TextCodec(shipped)).name == "qwen3"


def test_a_few_steps_write_a_policy(tool, tmp_path, monkeypatch) -> None:
    out = tmp_path / "policy"
    monkeypatch.setattr(tool, "EXCERPTS", 2)
    monkeypatch.setattr(cloning, "POOL", 8)
    line = f"x --out {out} --steps 2 --tokens-per-batch 512"
    monkeypatch.setattr(sys, "argv", line.split())
    tool.main()
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {f.name for f in out.iterdir()}
    assert len(AutoTokenizer.from_pretrained(out)) == len(AutoTokenizer.from_pretrained(SHIPPED))
