"""pass@k: how likely one of k rollouts of a task succeeds."""

from collections.abc import Sequence
from math import comb

import numpy as np

SUCCESS = 1.0 - 1e-6
"""A reward from here on is a success; a part of a reward is none."""


def pass_at(rewards: Sequence[Sequence[float]], most: int) -> dict[str, float]:
    """`pass@k` -> its mean over the tasks, for k = 2, 4, 8, ... and `most`.

    With n rollouts, c of them successes: 1 − C(n − c, k) / C(n, k), the unbiased estimate of Codex
    (arXiv 2107.03374, equation 1). A task with fewer than k rollouts is left out.

    Args:
        rewards: of each task's rollouts.
        most: the largest k.
    """
    sizes = sorted({*(2**power for power in range(1, 30) if 2**power < most), most})
    found = {}
    for k in sizes:
        estimates = [_pass_at_k(task, k) for task in rewards if len(task) >= k]
        if estimates:
            found[f"pass@{k}"] = float(np.mean(estimates))
    return found


def _pass_at_k(rewards: Sequence[float], k: int) -> float:
    failures = sum(reward < SUCCESS for reward in rewards)
    return 1.0 - comb(failures, k) / comb(len(rewards), k)
