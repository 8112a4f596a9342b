"""Countdown: one operation a turn, forkable, and worth what random play makes of it."""

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_trace.config import EnvironmentConfig
from megatron_trace.envs import make_environments
from megatron_trace.envs.builtin.countdown import Countdown, best_value, parse, value
from megatron_trace.envs.check import check_environment
from megatron_trace.envs.contract import check_contract, check_episode
from megatron_trace.envs.countdown_rules import Operation, legal_operations

TASK = {"id": "0", "numbers": [8, 3, 7], "target": 59}


def game(task: dict[str, Any] = TASK, max_turns: int = 5) -> Countdown:
    episode = Countdown(Countdown.Options(), max_turns)
    episode.reset(task)
    return episode


def written(operation: Operation | str) -> str:
    return f"I try. <op> {operation} </op>"


def test_the_prompt_shows_the_rules_the_numbers_and_the_target() -> None:
    (message,) = Countdown(Countdown.Options(), 5).reset(TASK)
    assert message["content"].endswith("\nNumbers: 3 7 8 Target: 59")
    assert "<op> A * B </op>" in message["content"]


def test_the_target_among_the_numbers_wins() -> None:
    episode = game()
    first = episode.step(written("7 * 8"))
    assert first.observation == "\n<numbers> 3 56 </numbers>\n"
    assert not first.done and first.reward == 0
    end = episode.step(written("3 + 56"))
    assert (end.done, end.reward, end.malformed) == (True, 1.0, False)


def test_a_target_wins_though_numbers_are_left() -> None:
    episode = game({"id": "0", "numbers": [3, 7, 8], "target": 56})
    assert episode.step(written("8 * 7")).reward == 1.0


def test_one_number_that_is_not_the_target_loses() -> None:
    episode = game()
    episode.step(written("7 + 8"))
    end = episode.step(written("15 - 3"))
    assert (end.done, end.reward, end.malformed) == (True, 0.0, False)


def test_an_illegal_operation_is_told_and_costs_its_turn() -> None:
    episode = game(max_turns=3)
    told = episode.step(written("8 / 3"))
    assert told.observation == (
        "\n<numbers> 3 7 8 </numbers> <error> 8 / 3 is no whole number above 0 </error>\n"
    )
    assert not told.malformed and not told.done
    restored = Countdown(Countdown.Options(), 3)
    restored.restore(episode.snapshot())
    episode = restored
    episode.step(written("9 + 9"))
    end = episode.step(written("7 * 8"))
    assert end.done and end.reward == 0.0
    assert end.parts == {"won": 0.0, "illegal_operations": 2.0}


@pytest.mark.parametrize(
    "text",
    [
        "7 * 8",
        "<op> 7 * 8",
        "<op> 7 * 8 </op> so",
        "<op> 7 </op>",
        "<op> 7 * 8 = 56 </op>",
        "<op> 7 * 8 * 3 </op>",
        "<op> 7.5 * 8 </op>",
        "<op> -7 + 8 </op>",
        "<op> ７ * ８ </op>",
        f"<op> 1 + {'9' * 5_000} </op>",
        "<op> 7 * 8 </op> <op> 3 + 56 </op>",
        "<op> <op> 7 * 8 </op>",
    ],
)
def test_what_does_not_parse_ends_the_game(text: str) -> None:
    end = game().step(text)
    assert (end.done, end.reward, end.malformed, end.observation) == (True, 0.0, True, "")


@pytest.mark.parametrize(
    "text", ["<op>7*8</op>", "I try.\n<op> 7 * 8 </op>\n", "<op> 1 + 1 </op></think><op>7*8</op>"]
)
def test_what_parses(text: str) -> None:
    assert parse(text) == Operation(7, "*", 8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"numbers": [3, 7]}, r"numbers must be a list of 3 to 6, not \[3, 7\]"),
        ({"numbers": "378"}, "must be a list"),
        ({"numbers": [3, 7, 0]}, "whole numbers from 1 to 1,000,000, not 0"),
        ({"numbers": [3, 7, True]}, "not True"),
        ({"numbers": [3, 7, 8.0]}, "not 8.0"),
        ({"target": None}, "not None"),
        ({"target": 7}, r"the target 7 is among the numbers \[8, 3, 7\]"),
    ],
)
def test_a_task_that_is_none_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        game().check_task(TASK | change)


def test_it_keeps_the_contract() -> None:
    make = make_environments(EnvironmentConfig("countdown", 5))
    check_contract(make, TASK, [written("9 * 8"), written("7 * 8"), written("56 + 3")])
    check_environment(make, [TASK], 3)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 20), min_size=3, max_size=6),
    st.integers(21, 200),
    st.integers(0, 10**6),
)
def test_every_game_of_legal_and_other_operations_can_be_forked(
    numbers: list[int], target: int, seed: int
) -> None:
    rng = random.Random(seed)

    def next_action(episode: Any, turn: int) -> str:
        legal = legal_operations(episode.snapshot()["numbers"])
        return written(rng.choice([*legal, Operation(99, "+", 1)]))

    make = make_environments(EnvironmentConfig("countdown", 7))
    check_episode(make, {"id": "0", "numbers": numbers, "target": target}, next_action)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=3, max_size=4), st.integers(10, 60), st.data())
def test_a_value_is_the_mean_of_what_the_legal_operations_lead_to(
    numbers: list[int], target: int, data: Any
) -> None:
    max_turns = data.draw(st.integers(1, 4))
    episode = game({"id": "0", "numbers": numbers, "target": target}, max_turns)
    start = episode.snapshot()
    values = []
    for operation in legal_operations(numbers):
        episode.restore(start)
        result = episode.step(written(operation))
        values.append(result.reward if result.done else value(episode.snapshot(), max_turns))
    assert value(start, max_turns) == pytest.approx(sum(values) / len(values))
    assert best_value(start, max_turns) == float(max(values) > 0)


def test_turns_that_were_lost_lower_a_value() -> None:
    task = {"id": "0", "numbers": [3, 7, 8], "target": 59}
    episode = game(task, max_turns=3)
    whole = value(episode.snapshot(), 3)
    episode.step(written("9 + 9"))
    assert value(episode.snapshot(), 3) == whole > 0
    episode.step(written("9 + 9"))
    assert value(episode.snapshot(), 3) == best_value(episode.snapshot(), 3) == 0.0
