"""The value of rollouts at an anchor: the probability of mixed rewards (arXiv 2606.11119)."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def root_value(success: ArrayLike, count: ArrayLike) -> Floats:
    """Stage 1: V_root(v, m) = 1 − v^m − (1−v)^m for m ≥ 2, and 0 for m of 0 and 1. Broadcasts."""
    v = np.asarray(success, dtype=np.float64)
    m = np.asarray(count)
    mixed = 1.0 - v**m - (1.0 - v) ** m
    return np.where(m >= 2, mixed, 0.0)


def prefix_value(same_outcome: ArrayLike, count: ArrayLike) -> Floats:
    """Stage 2: V_pref(q, k) = 1 − q^k; q is the probability that a continuation ends alike."""
    q = np.asarray(same_outcome, dtype=np.float64)
    return 1.0 - q ** np.asarray(count)


def same_outcome(prediction: ArrayLike, reward: ArrayLike) -> Floats:
    """q = r·Ṽ + (1−r)·(1−Ṽ): probability that a continuation of a prefix repeats the outcome r."""
    v = np.asarray(prediction, dtype=np.float64)
    r = np.asarray(reward, dtype=np.float64)
    return r * v + (1.0 - r) * (1.0 - v)
