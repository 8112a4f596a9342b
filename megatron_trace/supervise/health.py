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
    _check_upper(metrics, "logprob_gap", "logprob_gap", stop.logprob_gap)
    _check_upper(metrics, "kl", "kl", stop.kl)
    _check_upper(metrics, "gradient_norm", "gradient_norm", stop.gradient_norm)
    _check_upper(metrics, "malformed_share", "malformed", stop.malformed)
    lowest = stop.entropy_below
    if lowest is not None and not metrics["entropy"] >= lowest:
        entropy = metrics["entropy"]
        raise UnhealthyRun(f"entropy is {entropy:.4g}, below stop.entropy_below = {lowest:g}")


def _check_upper(
    metrics: Mapping[str, float], name: str, setting: str, limit: float | None
) -> None:
    # Not written as `metrics[name] > limit`: every comparison with NaN is false, and NaN is never
    # healthy. (The same for the entropy above.)
    if limit is not None and not metrics[name] <= limit:
        raise UnhealthyRun(f"{name} is {metrics[name]:.4g}, above stop.{setting} = {limit:g}")
