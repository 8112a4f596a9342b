"""The demonstrator of Countdown's start policy, and the shipped folder."""

import random
from pathlib import Path

import pytest
from build_countdown import is_heldout

from megatron_trace.envs.builtin.countdown import parse
from megatron_trace.envs.countdown_rules import random_value

SHIPPED = Path(__file__).parents[3] / "examples/countdown/start_policy"
TASKS = [
    {"id": "0", "numbers": [3, 7, 8], "target": 59},
    {"id": "1", "numbers": [2, 5, 5, 9], "target": 40},
    {"id": "2", "numbers": [4, 6, 10], "target": 16},
]


@pytest.fixture(scope="module")
def tool(load_tool):
    return load_tool("make_countdown_policy")


def wins(tool, task, noise, rng) -> bool:
    """Whether a demonstration's last operation gives the target."""
    operation = parse(list(tool.play(task, noise, rng))[-1].text)
    left, sign, right = operation
    values = {"+": left + right, "-": left - right, "*": left * right, "/": left / right}
    return values[sign] == task["target"]


def test_the_solver_always_wins(tool) -> None:
    rng = random.Random(0)
    assert all(wins(tool, task, 0.0, rng) for task in TASKS for _ in range(30))


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task["id"])
def test_a_demonstrator_that_always_errs_wins_as_often_as_random_play(tool, task) -> None:
    rng, plays = random.Random(1), 2_000
    value = random_value(task["numbers"], task["target"], 5)
    won = sum(wins(tool, task, 1.0, rng) for _ in range(plays)) / plays
    assert abs(won - value) < 4 * (value * (1 - value) / plays) ** 0.5


def test_drawn_tasks_can_be_solved_and_are_not_held_out(tool) -> None:
    rng = random.Random(0)
    for _ in range(200):
        task = tool.draw_task(0, rng)
        numbers, target = task["numbers"], task["target"]
        assert target not in numbers and 10 <= target <= 100
        assert random_value(numbers, target, len(numbers) - 1) > 0
        assert not is_heldout(tuple(numbers), 0)


def test_only_actions_are_learnt(tool) -> None:
    segments = list(tool.play(TASKS[0], 0.0, random.Random(0)))
    assert [s.kind for s in segments] == ["question", "action", "observation", "action"]
    assert all(s.learn == (s.kind == "action") for s in segments)


def test_the_shipped_policy_is_small_and_knows_the_tags(tool) -> None:
    from transformers import AutoTokenizer

    assert sum(file.stat().st_size for file in SHIPPED.iterdir()) <= 8_000_000
    tokenizer = AutoTokenizer.from_pretrained(SHIPPED)
    assert len(tokenizer) == tool.VOCABULARY
    text = "<op> 7 * 8</op>"
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert len(ids) == 5 and tokenizer.decode(ids, skip_special_tokens=True) == text
