"""Beliefs: a Beta distribution over the success probability p of an anchor.

    α = κ·v + Σ_j w_j·r_j        β = κ·(1 − v) + Σ_j w_j·(1 − r_j)

v is the predicted success and κ its concentration: how many rollouts the prediction is worth. r_j
are rewards of rollouts that tell about p, and w_j how much each tells: 1 where it was sampled from
the anchor (`evidence.py` has the others).

Where κ is small, p lies near 0 or 1: at v = ½ half of the tasks nearly always succeed and half
nearly never do. The paper's plug-in values (arXiv 2606.11119) are the limit κ → ∞.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln

Floats = NDArray[np.float64]


class Belief(NamedTuple):
    """Beta distributions over success probabilities; both of the same shape, and above 0."""

    alpha: Floats
    beta: Floats

    @property
    def mean(self) -> Floats:
        """E p."""
        return self.alpha / (self.alpha + self.beta)

    def same(self, reward: ArrayLike) -> tuple[Floats, Floats]:
        """Counts of the outcome `reward`, and of the other one; broadcasts."""
        r = np.asarray(reward, dtype=np.float64)
        same = r * self.alpha + (1 - r) * self.beta
        return same, self.alpha + self.beta - same

    def joined(self, others: "Belief") -> "Belief":
        """These beliefs, then `others`; both [n]."""
        return Belief(
            np.concatenate([self.alpha, others.alpha]), np.concatenate([self.beta, others.beta])
        )


def prior(prediction: Floats, concentration: float) -> Belief:
    """The belief before any outcome: mean `prediction`, as sure as `concentration` rollouts.

    Args:
        prediction: in [0, 1]; it is moved away from both ends, where nothing could be learned.
    """
    v = np.clip(prediction, 1e-4, 1 - 1e-4)
    return Belief(v * concentration, (1 - v) * concentration)


def all_alike(same: Floats | float, other: Floats | float, count: ArrayLike) -> Floats:
    """E q^k = (a)_k / (a + b)_k, for q ~ Beta(a, b): k more outcomes are all of the same kind.

    Args:
        same, other: a and b, the counts of the kind and of the other.
        count: k, at least 0.
    """
    a, k = np.asarray(same, dtype=np.float64), np.asarray(count)
    total = a + np.asarray(other, dtype=np.float64)
    # (a)_k = Γ(a + k) / Γ(a), the rising factorial.
    return np.exp(gammaln(a + k) - gammaln(a) - gammaln(total + k) + gammaln(total))


def expected_root_value(belief: Belief, count: ArrayLike) -> Floats:
    """E V_root(p, m) = 1 − E p^m − E (1−p)^m for m ≥ 2, and 0 for m of 0 and 1. Broadcasts."""
    successes = all_alike(belief.alpha, belief.beta, count)
    failures = all_alike(belief.beta, belief.alpha, count)
    return np.where(np.asarray(count) >= 2, 1.0 - successes - failures, 0.0)
