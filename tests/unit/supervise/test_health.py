"""Thresholds stop a run, and say why."""

import pytest

from megatron_trace.config import StopConfig
from megatron_trace.supervise.health import UnhealthyRun, check_health

HEALTHY = {
    "logprob_gap": 0.001,
    "kl": 0.01,
    "gradient_norm": 1.0,
    "malformed_share": 0.1,
    "entropy": 0.7,
}


def test_without_thresholds_nothing_stops() -> None:
    check_health(HEALTHY | {"logprob_gap": 100.0}, StopConfig())


@pytest.mark.parametrize(
    ("stop", "message"),
    [
        (StopConfig(logprob_gap=0.0005), r"logprob_gap is 0.001, above stop.logprob_gap = 0.0005"),
        (StopConfig(malformed=0.05), r"malformed_share is 0.1, above stop.malformed"),
        (StopConfig(entropy_below=0.8), r"entropy is 0.7, below stop.entropy_below = 0.8"),
    ],
)
def test_a_crossed_threshold_names_value_and_setting(stop, message) -> None:
    with pytest.raises(UnhealthyRun, match=message):
        check_health(HEALTHY, stop)


def test_a_metric_that_is_not_a_number_is_unhealthy() -> None:
    with pytest.raises(UnhealthyRun, match="logprob_gap is nan"):
        check_health(HEALTHY | {"logprob_gap": float("nan")}, StopConfig(logprob_gap=1.0))
