"""What rollouts at an anchor are worth: the probability of mixed rewards (arXiv 2606.11119)."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def root_value(success: ArrayLike, count: ArrayLike) -> NDArray[np.float64]:
    """Stage 1: V_root(v, m) = 1 − v^m − (1−v)^m for m ≥ 2, and 0 for m of 0 and 1. Broadcasts."""
    v, m = np.asarray(success, dtype=np.float64), np.asarray(count)
    return np.where(m >= 2, 1.0 - v**m - (1.0 - v) ** m, 0.0)


def prefix_value(same_outcome: ArrayLike, count: ArrayLike) -> NDArray[np.float64]:
    """Stage 2: V_pref(q, k) = 1 − q^k, q the probability that a continuation ends as its rollout did."""
    return 1.0 - np.asarray(same_outcome, dtype=np.float64) ** np.asarray(count)


def same_outcome(prediction: ArrayLike, reward: ArrayLike) -> NDArray[np.float64]:
    """q = r·Ṽ + (1−r)·(1−Ṽ): probability that a continuation of a prefix repeats the outcome r."""
    v, r = np.asarray(prediction, dtype=np.float64), np.asarray(reward, dtype=np.float64)
    return r * v + (1.0 - r) * (1.0 - v)
