"""What is to be kept in mind about a comparison's numbers."""

from collections.abc import Sequence

from megatron_trace.compare.statistics import EXACT_PAIRS, RESAMPLES, smallest_flip
from megatron_trace.compare.summary import VariantSummary


def footnotes(summaries: Sequence[VariantSummary], baseline: str, simulated: bool) -> list[str]:
    """What the table means and what it cannot show."""
    notes = [
        "Every variant has the same sampling budget. Means are over seeds, with 95 % "
        "percentile-bootstrap intervals "
        "(seeds are resampled). With few seeds such an interval is too narrow: with five it "
        "covers the true mean "
        "in about 85 % of cases.",
        "“On the way” is the mean height of the success curve over rollouts. “Rollouts to "
        "baseline's end”: share of "
        f"{baseline}'s rollouts, by linear interpolation, after which a seed first came to "
        f"{baseline}'s final success "
        "in the same seed; one that never did counts as 100 %, hence ≥. Evaluations are noisy and "
        "the first crossing "
        f"favours noise: {baseline}'s own line shows by how much.",
    ]
    # With one pair there is no test: two are the least that differ from each other.
    pairs = [one.success_test.difference.count for one in summaries if one.success_test]
    if max(pairs, default=0) >= 2:
        notes.append(_note_on_tests(max(pairs)))
    return notes + (_NOTES_ON_SIMULATIONS if simulated else _NOTES_ON_RUNS)


def _note_on_tests(pairs: int) -> str:
    how = "exact" if pairs <= EXACT_PAIRS else f"sampled ({RESAMPLES:,} flips)"
    return (
        "Differences are paired by seed. p (t) is the paired t-test, which takes the differences "
        "for normal; "
        f"p (flip) the {how} sign-flip permutation test, which does not: with {pairs} pairs it "
        "cannot fall below "
        f"{smallest_flip(pairs):.3g}. Both are two-sided and not corrected for the number of "
        "variants."
    )


_NOTES_ON_SIMULATIONS = [
    "Success is exact in the simulator: the policy's expectation over all tasks of the world.",
    "“Expected mixed tasks” and “expected effective ratio” are exact only where all continuations "
    "are planned "
    "at once, after all bare rollouts; for strategies that plan in several rounds read the "
    "effective ratio. "
    "A step's gradient SNR grows with what the step costs, so it is given per 1,000 rollouts and "
    "tokens.",
]
_NOTES_ON_RUNS = [
    "Success is one sampled rollout for each held-out task. The effective ratio is the share of "
    "sampled tasks "
    "whose tree has both a success and a failure, the mean over all steps."
]
