"""How a comparison's numbers are written."""

import math

from megatron_trace.compare.statistics import Interval
from megatron_trace.compare.summary import VariantSummary
from megatron_trace.report.words import seconds_text, short


def value_text(value: float, kind: str) -> str:
    """A value for people; nothing for NaN."""
    if not math.isfinite(value):
        return ""
    if kind == "share":
        return f"{100 * value:.1f} %"
    if kind == "percent":
        return f"{100 * value:.0f} %"
    if kind == "points":
        return f"{100 * value:+.1f}"
    if kind == "times":
        return f"{value:.2f}"
    if kind == "count":
        return short(value)
    if kind == "seconds":
        return seconds_text(value)
    return f"{value:.3g}"


def interval_text(interval: Interval, kind: str) -> str:
    """[low, high]; nothing for one seed, for counts and for times."""
    if kind in ("count", "seconds") or not math.isfinite(interval.low):
        return ""
    ends = (interval.low, interval.high)
    low, high = (value_text(end, kind).removesuffix(" %") for end in ends)
    return f"[{low}, {high}]"


def mean_text(summary: VariantSummary, key: str, kind: str) -> str:
    """The mean of a measure; with ≥ where some seeds never got there and count as 100 %."""
    if key not in summary.intervals:
        return ""
    interval = summary.intervals[key]
    text = value_text(interval.mean, kind)
    # Those seeds needed more than the whole cost, so the mean is a lower bound.
    if text and key == "reach" and summary.reached < interval.count:
        return "≥ " + text
    return text


def p_text(p: float) -> str:
    """A p-value; nothing for NaN."""
    if not math.isfinite(p):
        return ""
    return "<0.001" if p < 0.001 else f"{p:.3f}"
