"""A Gaussian process over prompt embeddings that predicts success (VIP, arXiv 2602.01601).

It is updated as rollouts end. A latent f(x) with p = σ(f(x)) has the kernel
k(x, y) = exp(−|x − y|² / 2h²), h the median distance. A step observes the prompts X with logits g.
The posterior mean becomes the prior mean m of the next step; the kernel stays:

    m(x) ← m(x) + k(x, X) [k(X, X) + N]⁻¹ (g − m(X))

Ours:
- Prompts are not known beforehand. So m is kept as the sum of kernels that these updates add up
  to, one kernel for each of the newest prompts.
- m begins as the logit of the first step's mean success, and h is fixed then. Before that every
  prompt has ½.
- Of s successes in n rollouts, p̂ = (s + ½) / (n + 1) gives g = logit p̂ and the noise
  N = 1 / (n p̂(1 − p̂)), the variance of a logit by the delta method.
- Wide embeddings are projected at random, which keeps distances to about 1/√dimensions.
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
    """Success probability of a prompt from the success of prompts with similar embeddings."""

    def __init__(self, *, memory: int, dimensions: int) -> None:
        """
        Args:
            memory: newest prompts that are kept.
            dimensions: most numbers that are kept of an embedding.
        """
        self._memory, self._dimensions = memory, dimensions
        self._mean, self._width = 0.0, 0.0
        self._points = np.zeros((0, 0))
        self._weights = np.zeros(0)

    def predict(self, embeddings: ArrayLike) -> Floats:
        """Success probabilities [n] of prompts with `embeddings` [n, width]."""
        raw = np.asarray(embeddings, dtype=np.float64)
        if not self._width:
            return np.full(len(raw), 0.5)
        return expit(self._latent_mean(self._scaled(raw)))

    def observe(self, embeddings: ArrayLike, successes: ArrayLike, rollouts: ArrayLike) -> None:
        """Learn from a step's outcomes.

        Args:
            embeddings: of the step's prompts, [n, width].
            successes, rollouts: sum of rewards, and number of rollouts, of each prompt, [n].
        """
        raw = np.asarray(embeddings, dtype=np.float64)
        s = np.asarray(successes, dtype=np.float64)
        n = np.asarray(rollouts, dtype=np.float64)
        if not self._width:
            self._mean = float(logit((s.sum() + 0.5) / (n.sum() + 1.0)))
            self._width = _median_distance(_projected(raw, self._dimensions))
        points = self._scaled(raw)
        rate = (s + 0.5) / (n + 1.0)
        noise = np.diag(1.0 / (n * rate * (1.0 - rate)))
        covariance = _kernel(points, points) + noise
        residual = logit(rate) - self._latent_mean(points)
        weights = solve(covariance, residual, assume_a="pos")
        # The weights of earlier prompts never change: an update of the mean only adds kernels. So
        # forgetting a prompt is dropping one term, and a step costs its own prompts' cube only.
        earlier = self._points.reshape(-1, points.shape[1])
        self._points = np.concatenate([earlier, points])[-self._memory :]
        self._weights = np.concatenate([self._weights, weights])[-self._memory :]

    def _scaled(self, raw: Floats) -> Floats:
        """Embeddings in units of h, projected; rounded, so that a checkpoint stays small."""
        return np.round(_projected(raw, self._dimensions) / self._width, 4)

    def _latent_mean(self, points: Floats) -> Floats:
        """m at scaled points [n, dimensions], [n]."""
        if not len(self._weights):
            return np.full(len(points), self._mean)
        return self._mean + _kernel(points, self._points) @ self._weights

    def state(self) -> dict[str, Any]:
        """What a resumed run must know, as JSON data."""
        return {
            "mean": self._mean,
            "width": self._width,
            "points": self._points.tolist(),
            "weights": self._weights.tolist(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self._mean, self._width = state["mean"], state["width"]
        self._points = np.array(state["points"], dtype=float)
        self._weights = np.array(state["weights"], dtype=float)


def _kernel(x: Floats, y: Floats) -> Floats:
    """k between scaled points [n, dimensions] and [m, dimensions], [n, m]."""
    return np.exp(-0.5 * cdist(x, y, "sqeuclidean"))


def _median_distance(points: Floats) -> float:
    """The median distance of all pairs; 1 where there is no pair, or all points are the same."""
    distances = pdist(points)
    median = float(np.median(distances)) if len(distances) else 0.0
    return median or 1.0


def _projected(points: Floats, dimensions: int) -> Floats:
    """Points [n, width] as [n, min(width, dimensions)]."""
    width = points.shape[1]
    return points if width <= dimensions else points @ _projection(width, dimensions)


@cache
def _projection(width: int, dimensions: int) -> Floats:
    """A random matrix [width, dimensions], the same in every run."""
    return np.random.default_rng(0).normal(size=(width, dimensions)) / np.sqrt(dimensions)
