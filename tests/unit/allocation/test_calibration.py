"""Online calibration, and the scores of predictions."""

import numpy as np
import pytest
from scipy.special import expit, logit

from megatron_trace.allocation.calibration import Calibrated, Calibration
from megatron_trace.tree.predictions import Outcomes, auc, outcomes, scores
from tests.unit.trees import bare_tree, chain


def test_only_rollouts_sampled_through_an_anchor_count_for_it() -> None:
    tree = bare_tree([1.0, 0.0], turns=2)
    tree.graft(1, chain(900, 2, 0.0))
    root, prefix = outcomes([tree], roots=True), outcomes([tree], roots=False)
    assert (root.success.tolist(), root.weight.tolist()) == ([0.5], [2.0])
    assert prefix.success.tolist() == [1.0, 0.0, 0.0]


def sample(temperature, shift, n=4000):
    """Predictions that are right only after their logits are divided and shifted."""
    rng = np.random.default_rng(0)
    raw = expit(rng.normal(0.0, 2.0, n))
    success = rng.random(n) < expit(logit(raw) / temperature + shift)
    return Outcomes(raw, success.astype(float), np.ones(n))


def test_an_overconfident_predictor_is_tempered() -> None:
    kind, found = Calibrated(), sample(2.5, -0.5)
    kind.observe(found)
    assert (kind.temperature, kind.shift) == (
        pytest.approx(2.5, rel=0.15),
        pytest.approx(-0.5, abs=0.15),
    )
    mended = Outcomes(kind(found.prediction, 0.0), found.success, found.weight)
    assert scores(mended)["ece"] < 0.3 * scores(found)["ece"]
    assert scores(mended)["auc"] == pytest.approx(scores(found)["auc"])


def test_a_cold_predictor_is_drawn_to_the_mean_success() -> None:
    kind = Calibrated(mean=0.2)
    assert kind(np.array([0.9]), 50.0) == pytest.approx(0.2)
    kind.seen = 150.0
    assert kind(np.array([0.9]), 50.0) == pytest.approx(0.75 * 0.9 + 0.25 * 0.2, rel=1e-3)


@pytest.mark.parametrize("rollouts", [2, 8])
@pytest.mark.parametrize("deviation", [0.0, 0.3, 0.7])
def test_the_deviation_is_that_of_the_true_success_about_the_predictions(
    deviation, rollouts
) -> None:
    rng = np.random.default_rng(1)
    known = rng.normal(0.5, 1.0, 100_000)
    true = expit(known + deviation * rng.normal(size=len(known)))
    places, weights = np.polynomial.hermite_e.hermegauss(9)
    prediction = expit(known[:, None] + deviation * places) @ weights / weights.sum()
    success = rng.binomial(rollouts, true) / rollouts
    kind = Calibrated()
    kind.window.append([prediction.tolist(), success.tolist(), [float(rollouts)] * len(prediction)])
    assert kind.logit_std(0.0) ** 2 == pytest.approx(deviation**2, rel=0.2, abs=0.04)


def test_the_deviation_by_hand() -> None:
    kind = Calibrated()
    kind.window.append([[0.5, 0.5, 0.2], [0.0, 0.75, 1.0], [2.0, 4.0, 1.0]])
    # Excess: ½·(¼ − ¼/2) and ¾·(1/16 − ¼/4); scale: (½·¼)² and (¾·¼)²; a deviation of 1 is worth
    # 5/16 of both.
    assert kind.logit_std(0.0) ** 2 == pytest.approx(
        (1 / 16 + 5 / 16) / (1 / 64 + 9 / 256 + 5 / 16)
    )


def test_the_deviation_is_bounded_by_what_a_probability_can_be_off() -> None:
    kind = Calibrated()
    kind.window.append([[0.001] * 50, [1.0] * 50, [4.0] * 50])
    assert kind.logit_std(0.0) == 2.0


def test_graded_rewards_say_nothing_of_the_deviation() -> None:
    kind = Calibrated()
    kind.window.append([[0.5] * 50, [0.5, 0.52] * 25, [4.0] * 50])
    assert kind.logit_std(0.0) == 1.0


def test_single_rollouts_say_nothing_of_the_deviation() -> None:
    kind = Calibrated()
    assert kind.logit_std(0.0) == 1.0
    kind.window.append([[0.2, 0.9], [1.0, 0.0], [1.0, 1.0]])
    assert kind.logit_std(0.0) == 1.0


def test_without_calibration_predictions_pass_unchanged() -> None:
    calibration = Calibration(fitted=False, prior=0.0)
    calibration.observe([bare_tree([1.0, 1.0, 1.0])])
    assert calibration(np.array([0.3, np.nan]), True) == pytest.approx([0.3, np.nan], nan_ok=True)


def test_scores_by_hand() -> None:
    found = Outcomes(np.array([0.25, 0.75]), np.array([0.0, 0.5]), np.array([1.0, 3.0]))
    numbers = scores(found)
    assert numbers["brier"] == pytest.approx((0.0625 + 3 * 0.0625) / 4)
    assert numbers["ece"] == pytest.approx((0.25 + 3 * 0.25) / 4)
    assert numbers["brier_constant"] == pytest.approx((0.375**2 + 3 * 0.125**2) / 4)
    # Successes: 1.5 at 0.75. Failures: 1 at 0.25 (won), 1.5 at 0.75 (ties).
    assert numbers["auc"] == pytest.approx((1.5 * 1 + 1.5 * 1.5 / 2) / (1.5 * 2.5))


def test_auc_is_that_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    prediction, success = rng.integers(0, 6, 40) / 5, rng.integers(0, 2, 40).astype(float)
    pairs = [
        1.0 if p > q else 0.5 if p == q else 0.0
        for p, one in zip(prediction, success, strict=True)
        for q, other in zip(prediction, success, strict=True)
        if one == 1 and other == 0
    ]
    assert auc(Outcomes(prediction, success, np.ones(40))) == pytest.approx(np.mean(pairs))
    assert auc(Outcomes(prediction, np.ones(40), np.ones(40))) is None
