"""Thresholds that end a sick run before it costs more."""

from collections.abc import Mapping

from megatron_trace.config import StopConfig


class UnhealthyRun(RuntimeError):
    """A metric crossed its threshold."""


def check_health(metrics: Mapping[str, float], stop: StopConfig) -> None:
    """Compare a step's metrics with the thresholds that are set.

    Raises:
        UnhealthyRun: the first metric beyond its threshold, with both values and the setting's name.
    """
    above = {
        "logprob_gap": ("logprob_gap", stop.logprob_gap),
        "kl": ("kl", stop.kl),
        "gradient_norm": ("gradient_norm", stop.gradient_norm),
        "malformed": ("malformed_share", stop.malformed),
    }
    for setting, (name, limit) in above.items():
        if limit is not None and not metrics[name] <= limit:  # NaN is never healthy
            raise UnhealthyRun(f"{name} is {metrics[name]:.4g}, above stop.{setting} = {limit:g}")
    if stop.entropy_below is not None and not metrics["entropy"] >= stop.entropy_below:
        raise UnhealthyRun(
            f"entropy is {metrics['entropy']:.4g}, below stop.entropy_below = {stop.entropy_below:g}"
        )
