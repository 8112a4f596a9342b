"""A Gaussian process over prompt embeddings that predicts success, updated as rollouts end (VIP, arXiv 2602.01601).

A latent f(x) with p = σ(f(x)), the kernel k(x, y) = exp(−|x − y|² / 2h²), h the median distance. A step observes the
prompts X with logits g; the posterior mean becomes the prior mean of the next step, the kernel stays:

    m(x) ← m(x) + k(x, X) [k(X, X) + N]⁻¹ (g − m(X))

Ours: prompts are not known beforehand, so m is kept as the sum of kernels that these updates add up to, one for each
of the newest prompts. It begins as the logit of the first step's mean success, and h is fixed then; before that every
prompt has ½. Of s successes in n rollouts, p̂ = (s + ½) / (n + 1) gives g = logit p̂ and the noise
N = 1 / (n p̂(1 − p̂)), the variance of a logit by the delta method. Wide embeddings are projected at random, which
keeps distances to about 1/√dimensions.
"""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import solve
from scipy.spatial.distance import cdist, pdist
from scipy.special import expit, logit

Floats = NDArray[np.float64]


class SuccessProcess:
    """Success probability of a prompt from those of prompts like it."""

    def __init__(self, *, memory: int, dimensions: int) -> None:
        """Knows nothing yet; keeps the newest `memory` prompts, in at most `dimensions` numbers each."""
        self._memory, self._dimensions = memory, dimensions
        self._mean, self._width = 0.0, 0.0
        self._places = np.zeros((0, 0))
        self._weights = np.zeros(0)

    def predict(self, embeddings: ArrayLike) -> Floats:
        """Success probabilities [n] of prompts with `embeddings` [n, width]."""
        points = np.asarray(embeddings, dtype=np.float64)
        return (
            expit(self._latent(self._place(points))) if self._width else np.full(len(points), 0.5)
        )

    def observe(self, embeddings: ArrayLike, successes: ArrayLike, rollouts: ArrayLike) -> None:
        """A step's outcomes: for each prompt [n] the sum of its rewards, and its rollouts."""
        points = np.asarray(embeddings, dtype=np.float64)
        s, n = np.asarray(successes, dtype=np.float64), np.asarray(rollouts, dtype=np.float64)
        if not self._width:
            self._mean = float(logit((s.sum() + 0.5) / (n.sum() + 1.0)))
            self._width = _median_distance(_projected(points, self._dimensions))
        places, rate = self._place(points), (s + 0.5) / (n + 1.0)
        covariance = _kernel(places, places) + np.diag(1.0 / (n * rate * (1.0 - rate)))
        weights = solve(covariance, logit(rate) - self._latent(places), assume_a="pos")
        self._places = np.concatenate([self._places.reshape(-1, places.shape[1]), places])[
            -self._memory :
        ]
        self._weights = np.concatenate([self._weights, weights])[-self._memory :]

    def _place(self, points: Floats) -> Floats:
        """Where embeddings lie, in units of h; rounded, so that a checkpoint stays small."""
        return np.round(_projected(points, self._dimensions) / self._width, 4)

    def _latent(self, places: Floats) -> Floats:
        if not len(self._weights):
            return np.full(len(places), self._mean)
        return self._mean + _kernel(places, self._places) @ self._weights

    def state(self) -> dict[str, Any]:
        """As JSON data."""
        places, weights = self._places.tolist(), self._weights.tolist()
        return {"mean": self._mean, "width": self._width, "places": places, "weights": weights}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self._mean, self._width = state["mean"], state["width"]
        self._places, self._weights = (
            np.array(state["places"], dtype=float),
            np.array(state["weights"], dtype=float),
        )


def _kernel(x: Floats, y: Floats) -> Floats:
    return np.exp(-0.5 * cdist(x, y, "sqeuclidean"))


def _median_distance(points: Floats) -> float:
    distances = pdist(points)
    return (float(np.median(distances)) if len(distances) else 0.0) or 1.0


def _projected(points: Floats, dimensions: int) -> Floats:
    return (
        points
        if points.shape[1] <= dimensions
        else points @ _projection(points.shape[1], dimensions)
    )


@cache
def _projection(width: int, dimensions: int) -> Floats:
    """[width, dimensions], the same in every run."""
    return np.random.default_rng(0).normal(size=(width, dimensions)) / np.sqrt(dimensions)
