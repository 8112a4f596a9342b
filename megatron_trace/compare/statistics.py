"""What a handful of seeds can say: intervals and paired tests."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 9999

EXACT_PAIRS = 16
"""Up to this number of pairs all ways to flip their signs are counted; beyond, RESAMPLES of them
are drawn.
"""


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its interval; low and high are NaN for one seed, all for none."""

    mean: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Paired:
    """How a variant differs from the baseline, seed by seed.

    Attributes:
        difference: mean of variant − baseline over the seeds that both have, with its interval.
        t: p of the paired t-test, two-sided; NaN below two pairs.
        flip: p of the sign-flip permutation test of the mean, two-sided; exact up to EXACT_PAIRS.
    """

    difference: Interval
    t: float
    flip: float


def interval(values: Sequence[float]) -> Interval:
    """Mean and percentile-bootstrap interval (Efron 1979) at 95 %, the same at every call; NaN
    values are left out.
    """
    kept = np.array([value for value in values if math.isfinite(value)], dtype=np.float64)
    if len(kept) < 2:
        mean = float(kept[0]) if len(kept) else math.nan
        return Interval(mean, math.nan, math.nan, len(kept))
    # A fixed seed: the page of the same results is the same page, whenever it is made.
    found = stats.bootstrap(
        (kept,),
        np.mean,
        confidence_level=CONFIDENCE,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Interval(float(kept.mean()), float(found.low), float(found.high), len(kept))


def paired(variant: Sequence[float], baseline: Sequence[float]) -> Paired:
    """Compare values of the same seeds [seeds]; pairs with a NaN are left out.

    Differences that are all equal have no deviation, so that the t-test says nothing: its p is NaN.
    """
    differences = np.array(variant, dtype=np.float64) - np.array(baseline, dtype=np.float64)
    differences = differences[np.isfinite(differences)]
    if len(differences) < 2:
        return Paired(interval(differences.tolist()), math.nan, math.nan)
    # For nearly equal differences scipy warns of lost precision, on the terminal of whoever made
    # the table.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        t = (
            float(stats.ttest_1samp(differences, 0.0).pvalue)
            if np.ptp(differences) > 0
            else math.nan
        )
    return Paired(interval(differences.tolist()), t, _sign_flip_p(differences))


def _sign_flip_p(differences: NDArray[np.float64]) -> float:
    """p of the sign-flip test of `differences` [pairs]: the share of flips whose sum is at least as
    large.
    """
    # Success rates are multiples of one over the number of tasks, so different flips often have
    # equal sums. Added up in another order, these differ in the last bits: without the rounding
    # they would count as smaller.
    scaled = differences / max(np.abs(differences).sum(), np.finfo(np.float64).tiny)

    def size_of_sum(sample: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        return np.abs(np.round(sample.sum(axis=axis), 9))

    exact = len(differences) <= EXACT_PAIRS
    found = stats.permutation_test(
        (scaled,),
        size_of_sum,
        permutation_type="samples",
        vectorized=True,
        n_resamples=2**EXACT_PAIRS if exact else RESAMPLES,
        alternative="greater",
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue)


def smallest_flip(pairs: int) -> float:
    """The smallest p that the sign-flip test can give for this number of pairs: 2 / 2^pairs where
    it is exact.
    """
    # All signs as they are, and all signs turned around: two flips always have the largest sum.
    return 2.0 / 2.0**pairs if pairs <= EXACT_PAIRS else 1.0 / (1 + RESAMPLES)
