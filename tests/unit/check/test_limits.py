"""Limits that contradict each other are refused."""

import pytest

from megatron_trace.check.limits import check_limits
from megatron_trace.config import SettingError
from tests.unit.check.models import settings


def test_a_turn_is_part_of_a_history() -> None:
    with pytest.raises(
        SettingError, match=r"max_turn_tokens = 513: must be at most .*max_history_tokens \(512\)"
    ):
        check_limits(settings(rollout__max_turn_tokens=513, rollout__max_history_tokens=512))


def test_a_time_limit_leaves_time_to_end() -> None:
    with pytest.raises(SettingError, match=r"time_limit_min = 0.5: must be longer than stop.grace"):
        check_limits(settings(stop__time_limit_min=0.5, stop__grace_s=30.0))


def test_cache_blocks_hold_a_multiple_of_16_tokens() -> None:
    with pytest.raises(SettingError, match="block_size = 24: must be a multiple of 16"):
        check_limits(settings(rollout__block_size=24))
    check_limits(settings(rollout__block_size=48))


def test_limits_that_agree_pass() -> None:
    check_limits(settings(rollout__max_turn_tokens=4096, stop__time_limit_min=1.0))
