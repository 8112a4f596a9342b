"""The demonstrator of math_python's start policy, and the shipped folder."""

import random
from itertools import islice
from pathlib import Path

import pytest

from megatron_trace.envs.math_answers import final_answer
from megatron_trace.envs.sandbox import Sandbox
from megatron_trace.models.chat import load_codec
from megatron_trace.models.messages import Reply, ToolCall
from megatron_trace.models.renderer import make_renderer

pytest.importorskip("reasoning_gym", exc_type=ImportError)

SHIPPED = Path(__file__).parents[3] / "examples/math_python/start_policy"
SUMS = ("12 + 30 - 7", "10 - 99 - 99", "50 + 61")


@pytest.fixture(scope="module")
def tool(load_tool):
    return load_tool("make_math_policy")


def reply_with(code: str) -> Reply:
    return Reply("", calls=(ToolCall("python", {"code": code}, "call_0"),))


def test_the_tool_prints_what_the_demonstrations_say(tool) -> None:
    sandbox = Sandbox(size=1, isolation="process")
    try:
        for text in SUMS:
            code = f"print( {text} )"
            (message,) = tool.printed(reply_with(code))
            assert sandbox.run(code).stdout.strip() == message["content"]
    finally:
        sandbox.close()


@pytest.mark.parametrize("text", SUMS)
def test_who_never_errs_calls_the_tool_and_says_what_it_printed(tool, text) -> None:
    called, answered = tool.turns(text, 0.0, random.Random(0))
    assert f"print( {text} )" in called
    assert final_answer(answered) == str(tool.value(text))
    assert tool.LOWEST <= tool.value(text) <= tool.HIGHEST


def test_who_always_errs_is_hardly_ever_right(tool) -> None:
    rng, text = random.Random(0), SUMS[0]
    said = [list(tool.turns(text, 1.0, rng)) for _ in range(300)]
    right = [final_answer(one[-1]) == str(tool.value(text)) for one in said]
    assert sum(right) < 10
    assert {len(one) for one in said} == {1, 2}


def test_no_question_is_held_out(tool, monkeypatch) -> None:
    digits = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    monkeypatch.setattr(tool, "SETTINGS", digits)
    monkeypatch.setattr(tool, "HELDOUT", 50)
    drawn = {question for question, _ in islice(tool.questions(0, random.Random(0)), 2_000)}
    # Of 200 sums of two digits.
    assert 140 < len(drawn) <= 150


def test_the_policy_is_written(tool, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tool, "TOKENIZER_EPISODES", 60)
    monkeypatch.setattr("sys.argv", ["x"])
    out = tmp_path / "new"
    tool.make_policy(tool.arguments(None, out, noise=0.3, steps=2, peak=1e-3, tokens=256))
    names = {file.name for file in out.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names


def test_the_shipped_policy_is_small_and_sees_every_digit() -> None:
    assert sum(file.stat().st_size for file in SHIPPED.iterdir()) <= 2_500_000
    codec = load_codec(SHIPPED)
    assert make_renderer(codec).name == "template"
    digits = {digit: codec.encode(digit) for digit in "0123456789"}
    assert codec.encode("41 - 7")[:2] == digits["4"] + digits["1"]
    assert all(len(ids) == 1 for ids in digits.values())
