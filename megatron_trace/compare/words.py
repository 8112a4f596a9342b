"""How a comparison's numbers are written, and what is to be kept in mind about them."""

import math
from collections.abc import Sequence

from megatron_trace.compare.statistics import EXACT_PAIRS, RESAMPLES, Interval, smallest_flip
from megatron_trace.compare.summary import Line
from megatron_trace.report.words import counted, seconds_text, short


def written(value: float, kind: str) -> str:
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


def bounds(one: Interval, kind: str) -> str:
    """Its interval as [low, high]; nothing for one seed, for counts and for times."""
    if kind in ("count", "seconds") or not math.isfinite(one.low):
        return ""
    low, high = (written(value, kind).removesuffix(" %") for value in (one.low, one.high))
    return f"[{low}, {high}]"


def mean_text(line: Line, key: str, kind: str) -> str:
    """The mean of a measure; with ≥ where seeds that never got there stand at 100 %."""
    if key not in line.intervals:
        return ""
    one = line.intervals[key]
    at_least = "≥ " if key == "reach" and line.reached < one.count else ""
    text = written(one.mean, kind)
    return at_least + text if text else ""


def p_text(p: float) -> str:
    """A p-value; nothing for NaN."""
    return "" if not math.isfinite(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def seeds_of(lines: Sequence[Line]) -> str:
    """How many seeds the lines have, in words."""
    counts = sorted({len(line.records) for line in lines})
    return counted(counts[0], "seed") if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"


def footnotes(lines: Sequence[Line], baseline: str, simulated: bool) -> list[str]:
    """What the table means and what it cannot show."""
    pairs = max(
        (line.tests["success"].difference.count for line in lines if "success" in line.tests),
        default=0,
    )
    notes = [
        "Every variant has the same sampling budget. Means are over seeds, with 95 % percentile-bootstrap intervals "
        "(seeds are resampled). With few seeds such an interval is too narrow: with five it covers the true mean "
        "in about 85 % of cases.",
        "“On the way” is the mean height of the success curve over rollouts. “Rollouts to baseline's end”: share of "
        f"{baseline}'s rollouts, by linear interpolation, after which a seed first came to {baseline}'s final success "
        "in the same seed; one that never did counts as 100 %, hence ≥. Evaluations are noisy and the first crossing "
        f"favours noise: {baseline}'s own line shows by how much.",
    ]
    if pairs >= 2:
        how = "exact" if pairs <= EXACT_PAIRS else f"sampled ({RESAMPLES:,} flips)"
        notes.append(
            f"Differences are paired by seed. p (t) is the paired t-test, which takes the differences for normal; "
            f"p (flip) the {how} sign-flip permutation test, which does not: with {pairs} pairs it cannot fall below "
            f"{smallest_flip(pairs):.3g}. Both are two-sided and not corrected for the number of variants."
        )
    if simulated:
        notes.append(
            "Success is exact in the simulator: the policy's expectation over all tasks of the world."
        )
        notes.append(
            "“Expected mixed tasks” and “expected effective ratio” are exact only where all continuations are planned "
            "at once, after all bare rollouts; for strategies that plan in several rounds read the effective ratio. "
            "A step's gradient SNR grows with what the step costs, so it is given per 1,000 rollouts and tokens."
        )
    else:
        notes.append(
            "Success is one sampled rollout for each held-out task. The effective ratio is the share of sampled tasks "
            "whose tree has both a success and a failure, the mean over all steps."
        )
    return notes
