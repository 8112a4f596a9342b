"""What environments of this ecosystem return is taken, and what has no meaning is named."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from megatron_trace.envs import StepResult
from megatron_trace.envs.results import (
    BadResult,
    checked_messages,
    checked_result,
    checked_snapshot,
)

TAKEN = {
    "bool": (True, 1.0),
    "int": (1, 1.0),
    "graded": (0.25, 0.25),
    "numpy bool": (np.bool_(True), 1.0),
    "numpy int": (np.int64(0), 0.0),
    "numpy float": (np.float32(0.5), 0.5),
    "array of one": (np.array([1.0]), 1.0),
    "tensor": (torch.tensor(0.5, requires_grad=True), 0.5),
    "fraction": (Fraction(1, 4), 0.25),
    "rounded": (1.0000001, 1.0),
}
REFUSED = {
    "nan": math.nan,
    "inf": math.inf,
    "none": None,
    "text": "1.0",
    "hundred": 100.0,
    "negative": -1.0,
    "negative bool of numpy": np.float64(-0.5),
    "array": np.ones(2),
    "tensor": torch.ones(3),
    "nan tensor": torch.tensor(math.nan),
    "complex": 1j,
    "huge": 10**400,
    "dict": {"score": 1.0},
}


def last(reward: Any, **others: Any) -> StepResult:
    return StepResult(
        **{"observation": "", "done": True, "malformed": False} | others, reward=reward
    )


@pytest.mark.parametrize(("reward", "number"), TAKEN.values(), ids=TAKEN)
def test_a_reward_that_is_a_number_is_taken(reward: Any, number: float) -> None:
    found = checked_result(last(reward)).reward
    assert type(found) is float and found == number


@pytest.mark.parametrize("reward", REFUSED.values(), ids=REFUSED)
def test_any_other_reward_is_refused(reward: Any) -> None:
    with pytest.raises(BadResult, match=r"^the reward is "):
        checked_result(last(reward))


def test_only_the_end_is_rewarded() -> None:
    for nothing in (None, 0, False, 0.0):
        assert checked_result(last(nothing, done=False)).reward == 0.0
    with pytest.raises(BadResult, match=r"the reward is 0\.5 before the end"):
        checked_result(last(0.5, done=False))


@pytest.mark.parametrize("observation", [None, b"text", ["message"], 3, "\ud835"])
def test_an_observation_is_text(observation: Any) -> None:
    with pytest.raises(BadResult, match=r"^the observation "):
        checked_result(last(0.0, done=False, observation=observation))
    assert checked_result(last(1.0, observation=observation)).observation == ""


def test_flags_are_true_or_false() -> None:
    assert checked_result(last(1.0, done=np.bool_(True), malformed=0)).done is True
    for wrong in (None, "false", 2):
        with pytest.raises(BadResult, match=r"^done is "):
            checked_result(last(1.0, done=wrong))


@pytest.mark.parametrize("result", [None, ("", True, 1.0, False), {"reward": 1.0}])
def test_a_step_gives_a_step_result(result: Any) -> None:
    with pytest.raises(BadResult, match=r"^step returned"):
        checked_result(result)


@pytest.mark.parametrize(
    "messages",
    [
        "a question",
        [],
        None,
        ["a question"],
        [{"role": "user"}],
        [{"role": "user", "content": None}],
        [{"role": "user", "content": "\ud835"}],
    ],
)
def test_a_prompt_is_a_list_of_messages(messages: Any) -> None:
    with pytest.raises(BadResult):
        checked_messages(messages)


def test_a_snapshot_is_a_copy_that_later_steps_cannot_change() -> None:
    seen: list[str] = []
    state = checked_snapshot({"seen": seen, "pair": (1, 2)})
    seen.append("later")
    assert state == {"seen": [], "pair": [1, 2]}


@pytest.mark.parametrize("state", [None, "text", {"a": {1}}, {(1, 2): 3}, {"a": np.int64(1)}])
def test_a_snapshot_is_plain_data(state: Any) -> None:
    with pytest.raises(BadResult, match=r"^snapshot returned"):
        checked_snapshot(state)
