"""Thresholds that end a sick run before it costs more."""

from collections.abc import Mapping

from megatron_trace.config import StopConfig


class UnhealthyRun(RuntimeError):
    """A metric crossed its threshold."""


def check_health(metrics: Mapping[str, float], stop: StopConfig) -> None:
    """Compare a step's metrics with the thresholds that are set.

    Raises:
        UnhealthyRun: the first metric beyond its threshold, with both values and the setting's
            name.
    """
    upper_limits = (
        ("logprob_gap", "logprob_gap", stop.logprob_gap),
        ("kl", "kl", stop.kl),
        ("gradient_norm", "gradient_norm", stop.gradient_norm),
        ("malformed_share", "malformed", stop.malformed),
    )
    for name, setting, limit in upper_limits:
        if limit is None:
            continue
        value = metrics[name]
        # Not written as `value > limit`: every comparison with NaN is false, and NaN is never
        # healthy. The same for the entropy below.
        if not value <= limit:
            raise UnhealthyRun(f"{name} is {value:.4g}, above stop.{setting} = {limit:g}")
    lowest = stop.entropy_below
    if lowest is None:
        return
    entropy = metrics["entropy"]
    if not entropy >= lowest:
        raise UnhealthyRun(f"entropy is {entropy:.4g}, below stop.entropy_below = {lowest:g}")
