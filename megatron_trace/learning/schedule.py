"""The learning rate over a run."""

import math

from megatron_trace.config import Decay, OptimizerConfig


def learning_rate_factor(update: int, settings: OptimizerConfig) -> float:
    """Factor of the learning rate at optimizer update `update`, counted from 0; in [0, 1].

    The factor rises linearly, (update + 1) / (warmup_steps + 1), up to 1 at update `warmup_steps`.
    From there it falls over `decay_steps` updates to `min_learning_rate_factor`, along a line or
    half a cosine (arXiv 1608.03983, eq. 5, without restarts), and stays there.
    """
    if update < settings.warmup_steps:
        return (update + 1) / (settings.warmup_steps + 1)
    if settings.decay is Decay.constant or settings.decay_steps is None:
        return 1.0
    progress = min(1.0, (update - settings.warmup_steps) / settings.decay_steps)
    lowest = settings.min_learning_rate_factor
    if settings.decay is Decay.linear:
        return lowest + (1.0 - lowest) * (1.0 - progress)
    cosine = (1.0 + math.cos(math.pi * progress)) / 2.0
    return lowest + (1.0 - lowest) * cosine
