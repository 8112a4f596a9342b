"""The predictor judged on line: temperature and shift of its logits, a prior while it is cold, and its error."""

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

WINDOW = 6
"""Steps whose outcomes the calibration is fitted to."""

STIFFNESS = 20.0
"""Outcomes that the uncalibrated prediction is worth against them."""

SUSPECTED = 5.0
"""Roots predicted at ½ that a deviation of 1 is worth against the outcomes."""

WIDEST = 2.0
"""Deviation, to first order, of a success probability that is 0 or 1 where ½ was predicted."""

EDGE = 1e-4
"""Predictions are kept this far from 0 and 1, whose logits are infinite."""


@dataclass
class Calibrated:
    """One kind of anchor: v ↦ σ(logit(v) / temperature + shift), drawn to the mean success while it is cold."""

    temperature: float = 1.0
    shift: float = 0.0
    mean: float = 0.5
    seen: float = 0.0
    window: deque[list[list[float]]] = field(default_factory=lambda: deque(maxlen=WINDOW))

    def __call__(self, prediction: Floats, prior: float) -> Floats:
        """Success probabilities of the same shape; nan stays nan."""
        v = expit(logit(np.clip(prediction, EDGE, 1 - EDGE)) / self.temperature + self.shift)
        known = self.seen / (self.seen + prior) if prior else 1.0
        return known * v + (1.0 - known) * self.mean

    def deviation(self, prior: float) -> float:
        """Standard deviation, in logits, of the true success probabilities about these predictions; at most 2.

        By moments: the mean s of n rewards of 0 or 1 with chance p is off its prediction v by
        E (s − v)² = v(1−v)/n + (1 − 1/n)·Var p, and to first order Var p = deviation²·(v(1−v))². A single rollout
        says nothing of it; so long as there are few, it is drawn to 1. It is 1 where rewards are graded, whose
        noise is not v(1−v).
        """
        excess, scale, pull = 0.0, 0.0, SUSPECTED / 16
        for step in self.window:
            prediction, success, weight = np.array(step)
            if np.abs(weight * success - np.round(weight * success)).max() > 1e-6:
                return 1.0
            v = self(prediction, prior)
            noise, several = v * (1 - v), 1 - 1 / weight
            excess += float(np.sum(several * ((success - v) ** 2 - noise / weight)))
            scale += float(np.sum((several * noise) ** 2))
        return min(WIDEST, float(np.sqrt(max(excess + pull, 0.0) / (scale + pull))))

    def observe(self, new: Outcomes) -> None:
        """Fit to the outcomes of the last steps (log loss, with a pull towards no change)."""
        if not len(new.prediction):
            return
        self.seen += float(new.weight.sum())
        self.window.append(np.stack([new.prediction, new.success, new.weight]).tolist())
        prediction, success, weight = np.concatenate(
            [np.array(step) for step in self.window], axis=1
        )
        self.mean = float(np.average(success, weights=weight))
        z = logit(np.clip(prediction, EDGE, 1 - EDGE))

        def loss(parameters: Floats) -> float:
            v = np.clip(expit(np.exp(-parameters[0]) * z + parameters[1]), EDGE, 1 - EDGE)
            fit = -np.sum(weight * (xlogy(success, v) + xlog1py(1 - success, -v)))
            return float((fit + STIFFNESS * np.sum(parameters**2)) / (weight.sum() + STIFFNESS))

        best = minimize(
            loss, np.array([np.log(self.temperature), self.shift]), method="Nelder-Mead"
        )
        self.temperature, self.shift = float(np.exp(best.x[0])), float(best.x[1])


class Calibration:
    """Roots and prefixes, each with its own."""

    def __init__(self, *, fitted: bool, prior: float) -> None:
        """Predictions as they are; `prior` is `allocation.prior_rollouts`."""
        self._fitted, self._prior = fitted, prior
        self._kinds = {"root": Calibrated(), "prefix": Calibrated()}

    def __call__(self, prediction: Floats, roots: bool) -> Floats:
        """Success probabilities [n] of roots or prefixes with these raw predictions."""
        kind = self._kinds["root" if roots else "prefix"]
        return kind(prediction, self._prior) if self._fitted or self._prior else prediction.copy()

    @property
    def root_logit_std(self) -> float:
        """How far the true success of roots lies about their predictions, in logits; 1 before anything is known."""
        return self._kinds["root"].deviation(self._prior)

    def observe(self, trees: Sequence[RolloutTree]) -> None:
        """Learn from a step's trees."""
        for name, kind in self._kinds.items():
            found = outcomes(trees, roots=name == "root")
            kind.observe(found)
            if not self._fitted:
                kind.temperature, kind.shift = 1.0, 0.0

    def metrics(self, trees: Sequence[RolloutTree]) -> dict[str, float]:
        """Before `observe`: Brier score and expected calibration error as the allocation saw them, and its mapping."""
        numbers: dict[str, float] = {}
        for name, kind in self._kinds.items():
            found = outcomes(trees, roots=name == "root")
            seen = Outcomes(self(found.prediction, name == "root"), found.success, found.weight)
            numbers |= {
                f"calibrated_{key}_{name}": value
                for key, value in scores(seen).items()
                if key in ("brier", "ece")
            }
            numbers |= {f"temperature_{name}": kind.temperature, f"shift_{name}": kind.shift}
        return numbers | {"deviation_root": self.root_logit_std}

    def state(self) -> dict[str, Any]:
        """As JSON data."""
        return {
            name: vars(kind) | {"window": list(kind.window)} for name, kind in self._kinds.items()
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        for name, kind in self._kinds.items():
            stored = dict(state[name])
            kind.window = deque(stored.pop("window"), maxlen=WINDOW)
            for key, value in stored.items():
                setattr(kind, key, value)
