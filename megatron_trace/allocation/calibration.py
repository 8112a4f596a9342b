"""Online calibration of the predictor: temperature and shift, a prior, and its error."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit, xlog1py, xlogy

from megatron_trace.tree import RolloutTree
from megatron_trace.tree.predictions import Outcomes, outcomes, scores

Floats = NDArray[np.float64]

WINDOW_STEPS = 6
"""Steps whose outcomes the calibration is fitted to."""

NO_CHANGE_WEIGHT = 20.0
"""Weight, in outcomes, of the pull of temperature and shift towards 1 and 0."""

UNIT_STD_ROOTS = 5.0
"""Roots predicted at ½ with a standard deviation of 1 that are added to the observed roots."""

MAX_LOGIT_STD = 2.0
"""Deviation, to first order, of a success probability that is 0 or 1 where ½ was predicted."""

PREDICTION_MARGIN = 1e-4
"""Predictions are kept this far from 0 and 1, whose logits are infinite."""


def clipped_logit(prediction: Floats) -> Floats:
    """Logits of predictions, which are first moved away from 0 and 1."""
    return logit(np.clip(prediction, PREDICTION_MARGIN, 1 - PREDICTION_MARGIN))


@dataclass
class Calibrated:
    """Calibration of one kind of anchor: v ↦ σ(logit(v) / temperature + shift), then the prior.

    Attributes:
        temperature, shift: fitted to the outcomes of the window.
        mean: mean success rate of the window, which predictions are shrunk to.
        seen: rollouts seen so far.
        window: for each of the last steps prediction, success and weight, [3, anchors] as lists.
    """

    temperature: float = 1.0
    shift: float = 0.0
    mean: float = 0.5
    seen: float = 0.0
    window: deque[list[list[float]]] = field(default_factory=lambda: deque(maxlen=WINDOW_STEPS))

    def __call__(self, prediction: Floats, prior: float) -> Floats:
        """Success probabilities, of the same shape; nan stays nan.

        Args:
            prior: pseudo-count of the mean success rate (`allocation.prior_rollouts`).
        """
        fitted = expit(clipped_logit(prediction) / self.temperature + self.shift)
        trust = self.seen / (self.seen + prior) if prior else 1.0
        return trust * fitted + (1.0 - trust) * self.mean

    def logit_std(self, prior: float) -> float:
        """Standard deviation, in logits, of the true success about these predictions; at most 2.

        By moments: the mean s of n rewards of 0 or 1 with success probability p has
        E (s − v)² = v(1−v)/n + (1 − 1/n)·Var p about its prediction v. To first order
        Var p = std²·(v(1−v))². The estimate is 1 where rewards are graded, because their noise is
        not v(1−v).
        """
        # A root with one rollout says nothing: its weight 1 − 1/n is 0. The pseudo-roots keep the
        # estimate near 1 until enough roots with several rollouts have been seen.
        pseudo_roots = UNIT_STD_ROOTS / 16
        excess, scale = 0.0, 0.0
        for step in self.window:
            prediction, success, weight = np.array(step)
            if _graded(success, weight):
                return 1.0
            v = self(prediction, prior)
            noise = v * (1 - v)
            several = 1 - 1 / weight
            squared_error = (success - v) ** 2
            excess += float(np.sum(several * (squared_error - noise / weight)))
            scale += float(np.sum((several * noise) ** 2))
        variance = max(excess + pseudo_roots, 0.0) / (scale + pseudo_roots)
        return min(MAX_LOGIT_STD, float(np.sqrt(variance)))

    def observe(self, new: Outcomes) -> None:
        """Add a step's outcomes, and fit to those of the window: log loss, pulled to no change."""
        if not len(new.prediction):
            return
        self.seen += float(new.weight.sum())
        self.window.append(np.stack([new.prediction, new.success, new.weight]).tolist())
        steps = [np.array(step) for step in self.window]
        prediction, success, weight = np.concatenate(steps, axis=1)
        self.mean = float(np.average(success, weights=weight))
        logits = clipped_logit(prediction)

        def loss(parameters: Floats) -> float:
            log_temperature, shift = parameters
            v = expit(np.exp(-log_temperature) * logits + shift)
            v = np.clip(v, PREDICTION_MARGIN, 1 - PREDICTION_MARGIN)
            log_likelihood = xlogy(success, v) + xlog1py(1 - success, -v)
            # Without the pull a window with few outcomes, or with only successes, has its best
            # fit at an infinite temperature or shift.
            pull = NO_CHANGE_WEIGHT * np.sum(parameters**2)
            fit = -np.sum(weight * log_likelihood)
            return float((fit + pull) / (weight.sum() + NO_CHANGE_WEIGHT))

        # The logarithm keeps the temperature positive and makes halving and doubling cost alike.
        start = np.array([np.log(self.temperature), self.shift])
        best = minimize(loss, start, method="Nelder-Mead").x
        self.temperature, self.shift = float(np.exp(best[0])), float(best[1])


def _graded(success: Floats, weight: Floats) -> bool:
    """Whether some rewards lie between 0 and 1: then sums of rewards are not whole numbers."""
    successes = weight * success
    return bool(np.abs(successes - np.round(successes)).max() > 1e-6)


class Calibration:
    """Calibration of roots and of prefixes, each with its own parameters."""

    def __init__(self, *, fitted: bool, prior: float) -> None:
        """
        Args:
            fitted: whether temperature and shift are fitted (`allocation.calibrate`).
            prior: `allocation.prior_rollouts`.
        """
        self._fitted, self._prior = fitted, prior
        self._kinds = {"root": Calibrated(), "prefix": Calibrated()}

    def __call__(self, prediction: Floats, roots: bool) -> Floats:
        """Success probabilities [n] of roots or prefixes with these raw predictions."""
        kind = self._kinds["root" if roots else "prefix"]
        return kind(prediction, self._prior) if self._fitted or self._prior else prediction.copy()

    @property
    def root_logit_std(self) -> float:
        """Standard deviation, in logits, of the roots' true success about their predictions.

        1 before anything is known.
        """
        return self._kinds["root"].logit_std(self._prior)

    def observe(self, trees: Sequence[RolloutTree]) -> None:
        """Learn from a step's trees."""
        for name, kind in self._kinds.items():
            kind.observe(outcomes(trees, roots=name == "root"))
            if not self._fitted:
                kind.temperature, kind.shift = 1.0, 0.0

    def metrics(self, trees: Sequence[RolloutTree]) -> dict[str, float]:
        """Brier score and calibration error of the calibrated predictions, and the parameters.

        Called before `observe`, so that the parameters are those that the step was planned with.
        """
        numbers: dict[str, float] = {}
        for name, kind in self._kinds.items():
            found = outcomes(trees, roots=name == "root")
            calibrated = self(found.prediction, name == "root")
            judged = scores(Outcomes(calibrated, found.success, found.weight))
            for key in ("brier", "ece"):
                if key in judged:
                    numbers[f"calibrated_{key}_{name}"] = judged[key]
            numbers[f"temperature_{name}"] = kind.temperature
            numbers[f"shift_{name}"] = kind.shift
        numbers["deviation_root"] = self.root_logit_std
        return numbers

    def state(self) -> dict[str, Any]:
        """What a resumed run must know, as JSON data."""
        return {
            name: vars(kind) | {"window": list(kind.window)} for name, kind in self._kinds.items()
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        for name, kind in self._kinds.items():
            stored = dict(state[name])
            kind.window = deque(stored.pop("window"), maxlen=WINDOW_STEPS)
            for key, value in stored.items():
                setattr(kind, key, value)
