import math

import pytest

from megatron_trace.compare.measures import measures
from megatron_trace.compare.number_text import mean_text
from megatron_trace.compare.summary import summarise
from tests.unit.compare.canned import field, record


def line(records, name, baseline="uniform"):
    return next(one for one in summarise(records, baseline) if one.name == name)


def test_a_records_numbers_are_its_own() -> None:
    found = measures(record("uniform", 0, [0.2, 0.4, 0.5], ratio=(0.5, 0.7), tokens=150))
    assert found["success"] == 0.5
    assert found["on_the_way"] == pytest.approx((0.3 + 0.45) / 2)
    assert found["effective_ratio"] == pytest.approx(0.6)
    assert found["tokens"] == 300 and found["seconds"] == 4


def test_a_variant_is_compared_with_the_baseline_of_its_seed() -> None:
    trace = line(field(), "trace")
    assert trace.intervals["ratio_times"].mean == pytest.approx(1.9)
    # from 0.2 to 0.4 in the first step: the baseline's end of 0.4 after one of its two steps
    assert trace.values["reach"] == pytest.approx([0.5, 0.5, 0.5]) and trace.reached == 3
    assert trace.reach_of_means == pytest.approx(0.5)
    assert trace.success_test.difference.mean == pytest.approx((0.10 + 0.11 + 0.12) / 3)


def test_a_seed_that_never_got_there_counts_as_the_whole_cost() -> None:
    weak = record("pcl", 0, [0.2, 0.25, 0.3])
    found = line([*field(1), weak], "pcl")
    assert found.values["reach"] == [1.0] and found.reached == 0
    assert math.isnan(found.reach_of_means)


def test_a_seed_that_got_there_later_than_the_baseline_ended_is_none_that_did() -> None:
    late = record("pcl", 0, [0.2, 0.25, 0.3, 0.45], ratio=(0.5, 0.5, 0.5))
    found = line([*field(1), late], "pcl")
    assert found.values["reach"] == [1.0] and found.reached == 0
    assert mean_text(found, "reach", "percent") == "≥ 100 %"


def test_without_success_lines_stand_by_their_gradient_for_what_they_spent() -> None:
    records = [
        record(name, 0, [], kind="simulated", ratio=()) for name in ("uniform", "saver", "pcl")
    ]
    for one, snr, per_rollout in zip(records, (0.3, 0.2, 0.25), (1.0, 3.0, 2.0), strict=True):
        one.numbers = {"gradient_snr": snr, "gradient_snr_per_1000_rollouts": per_rollout}
    assert [one.name for one in summarise(records, "uniform")] == ["uniform", "saver", "pcl"]


def test_the_baseline_stands_first_and_the_others_by_success() -> None:
    records = [*field(2), *(record("pcl", seed, [0.1, 0.2]) for seed in range(2))]
    assert [one.name for one in summarise(records, "uniform")] == ["uniform", "trace", "pcl"]


def test_the_baseline_is_tested_against_nothing() -> None:
    uniform = line(field(), "uniform")
    assert uniform.success_test is None and "ratio_times" not in uniform.intervals
    assert uniform.intervals["reach"].mean == 1.0


def test_only_seeds_that_both_have_are_paired() -> None:
    assert (
        line([*field(2), record("trace", 9, [0.9, 0.9])], "trace").success_test.difference.count
        == 2
    )


def test_mean_curves_are_those_of_the_seeds_that_both_have() -> None:
    luckier = record("uniform", 7, [0.2, 0.8, 0.9])
    assert line([*field(2), luckier], "trace").reach_of_means == pytest.approx(0.5)


def test_budgets_are_lines_of_their_own_and_compared_within() -> None:
    records = [*field(2), *(record("trace", seed, [0.2, 0.9], budget=128) for seed in range(2))]
    lines = {one.name: one for one in summarise(records, "uniform")}
    assert set(lines) == {"uniform, 64", "trace, 64", "trace, 128"}
    assert lines["trace, 128"].success_test is None and lines["trace, 64"].success_test


def test_without_evaluations_there_is_no_success_to_compare() -> None:
    records = [record(name, seed, []) for name in ("uniform", "trace") for seed in (0, 1)]
    trace = line(records, "trace")
    assert "success" not in trace.intervals and "reach" not in trace.intervals
    assert trace.intervals["ratio_times"].mean == 1.0
