"""Against numbers computed by hand, or by enumeration."""

import itertools
import math

import numpy as np
import pytest

from megatron_trace.compare.curves import reached_at
from megatron_trace.compare.statistics import interval, paired, smallest_flip


def test_an_interval_is_that_of_all_resamples() -> None:
    values = [0.1, 0.2, 0.4, 0.8]
    means = [np.mean(sample) for sample in itertools.product(values, repeat=4)]
    low, high = np.percentile(means, [2.5, 97.5])
    found = interval([*values, math.nan])
    assert (found.mean, found.count) == (pytest.approx(0.375), 4)
    assert (found.low, found.high) == (pytest.approx(low, abs=0.01), pytest.approx(high, abs=0.01))
    assert interval(values) == found, "the same at every call"


def test_one_seed_has_a_mean_and_no_interval() -> None:
    found = interval([0.5])
    assert found.mean == 0.5 and math.isnan(found.low) and math.isnan(found.high)
    assert math.isnan(interval([]).mean)


def test_equal_seeds_have_an_interval_of_no_width() -> None:
    assert (interval([0.5] * 4).low, interval([0.5] * 4).high) == (0.5, 0.5)


def test_the_paired_tests_are_those_of_the_textbook() -> None:
    a, b = [0.72, 0.70, 0.75, 0.74, 0.71], [0.70, 0.69, 0.70, 0.71, 0.72]
    # differences 2, 1, 5, 3, -1 points: mean 2, deviation sqrt(5), t = 2 on 4 degrees of freedom
    found = paired(a, b)
    assert found.difference.mean == pytest.approx(0.02)
    assert found.t == pytest.approx(0.116117, abs=1e-5)
    signs = itertools.product([1, -1], repeat=5)
    sums = [abs(sum(s * d for s, d in zip(sign, [2, 1, 5, 3, -1], strict=True))) for sign in signs]
    assert found.flip == pytest.approx(sum(total >= 10 for total in sums) / 32)


def test_five_pairs_cannot_show_five_percent_by_flipping_signs() -> None:
    found = paired([2.0, 3.0, 4.0, 5.0, 7.0], [1.0, 1.0, 1.0, 1.0, 1.0])
    assert found.flip == smallest_flip(5) == 0.0625


def test_sixteen_pairs_are_flipped_in_all_ways_and_more_by_drawing() -> None:
    ones = [1.0] * 16
    assert paired(ones, [0.0] * 16).flip == smallest_flip(16) == 2 / 2**16
    assert paired([1.0] * 40, [0.0] * 40).flip == smallest_flip(40) == 1 / 10_000


def test_differences_that_cancel_are_no_evidence_however_they_round() -> None:
    assert paired([0.1, 0.2, -0.3], [0.0] * 3).flip == 1.0


def test_pairs_with_a_missing_half_do_not_count() -> None:
    found = paired([1.0, 2.0, math.nan], [0.0, 0.0, 0.0])
    assert found.difference.count == 2
    assert math.isnan(paired([1.0], [0.0]).t)


def test_differences_without_deviation_leave_the_t_test_without_an_answer() -> None:
    assert math.isnan(paired([1.0, 2.0, 3.0], [0.0, 1.0, 2.0]).t)


@pytest.mark.parametrize(
    ("mark", "where"),
    [(0.1, 0.0), (0.3, 50.0), (0.4, 100.0), (0.5, 250.0), (0.6, 300.0), (0.7, math.nan)],
)
def test_a_curve_reaches_a_mark_on_the_line_between_its_points(mark, where) -> None:
    found = reached_at([0.0, 100.0, 200.0, 300.0], [0.2, 0.4, 0.4, 0.6], mark)
    assert found == pytest.approx(where, nan_ok=True)
