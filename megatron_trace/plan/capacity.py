"""How many engines keep the train ranks busy.

The loop is synchronous: it samples, learns and sends weights one after the other, so the train ranks always wait while
the fleet samples, and the engines while they learn. Two numbers help to choose the split:

- the share of a step in which the train ranks work, which more engines raise;
- ECHO-2's rule for a loop that overlaps both (arXiv 2602.02192): the fleet must sample a step's rollouts in the time in
  which the step before is learned from, R/μ ≤ T_train. Beyond that many engines an overlapped loop gains nothing, and
  the synchronous one at most the half of its step.
"""

import math
from dataclasses import dataclass

from megatron_trace.config import Config
from megatron_trace.plan.duration import Durations


@dataclass(frozen=True)
class Capacity:
    """How fleet and train ranks match.

    Attributes:
        train_share: of a step in which the train ranks work.
        busy_workers: engines with which sampling takes no longer than learning; sampling is taken as inversely
            proportional to their number.
        busy_gpus: GPUs of these.
    """

    train_share: float
    busy_workers: int
    busy_gpus: int


def capacity(config: Config, seconds: Durations) -> Capacity:
    """Of a step of `seconds`."""
    if not math.isfinite(seconds.step):
        return Capacity(0.0, 0, 0)
    workers = max(1, math.ceil(config.rollout.workers * seconds.sampling / seconds.learning))
    return Capacity(
        seconds.learning / seconds.step, workers, workers * config.rollout.tensor_parallel
    )
