"""No number that is not finite, or of the wrong sign, reaches a run."""

import dataclasses
import math
import typing
from typing import Any

import pytest

from megatron_trace.check.numbers import NOT_NEGATIVE, POSITIVE, check_numbers
from megatron_trace.config import Config, SettingError
from tests.unit.check.models import settings

KINDS = {
    f"{section.name}__{name}": kind
    for section in dataclasses.fields(Config)
    for name, kind in typing.get_type_hints(section.type).items()
}
FLOATS = [name for name, kind in KINDS.items() if kind is float or float in typing.get_args(kind)]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", FLOATS)
def test_no_setting_is_infinite_or_no_number(name: str, value: float) -> None:
    dotted = name.replace("__", r"\.")
    with pytest.raises(SettingError, match=rf"{dotted} = {value}: must be a finite number"):
        check_numbers(settings(**{name: value}))


@pytest.mark.parametrize(("names", "value"), [(POSITIVE, 0), (POSITIVE, -1), (NOT_NEGATIVE, -1)])
def test_signs(names: list[str], value: int) -> None:
    for name in names:
        with pytest.raises(SettingError, match=rf"{name} = {value}: must"):
            check_numbers(settings(**{name.replace(".", "__"): value}))


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {name.replace(".", "__"): 0 for name in NOT_NEGATIVE},
        {"stop__hang_s": None, "rollout__block_size": None, "stop__kl": 0.5},
        {"rollout__max_turn_tokens": 4096},
    ],
)
def test_numbers_that_work_pass(changed: dict[str, Any]) -> None:
    check_numbers(settings(**changed))


@pytest.mark.parametrize("value", [-0.1, 1.0])
def test_an_average_keeps_a_share(value: float) -> None:
    with pytest.raises(SettingError, match=rf"predictor_average = {value}: must be a share"):
        check_numbers(settings(learning__predictor_average=value))


def test_a_turn_is_part_of_a_history() -> None:
    with pytest.raises(
        SettingError, match=r"max_turn_tokens = 513: must be at most .*max_history_tokens \(512\)"
    ):
        check_numbers(settings(rollout__max_turn_tokens=513, rollout__max_history_tokens=512))
