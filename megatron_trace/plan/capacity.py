"""How many engines keep the train ranks busy.

The loop is synchronous: it samples, learns and sends weights one after the other. So the train
ranks always wait while the fleet samples, and the engines wait while the train ranks learn. Two
numbers help to choose the split:

- the share of a step in which the train ranks work, which more engines raise;
- ECHO-2's rule for a loop that overlaps both (arXiv 2602.02192): the fleet must sample a step's
  rollouts in the time that learning from the step before takes, R/μ ≤ T_train. An overlapped loop
  gains nothing from more engines than that. A synchronous loop gains at most half of its step from
  them.
"""

import math
from dataclasses import dataclass

from megatron_trace.config import Config
from megatron_trace.plan.duration import Durations


@dataclass(frozen=True)
class Capacity:
    """How fleet and train ranks match.

    Attributes:
        train_share: share of a step in which the train ranks work.
        busy_workers: engines with which sampling takes no longer than learning, if the time of
            sampling is inversely proportional to their number.
        busy_gpus: GPUs of these engines.
    """

    train_share: float
    busy_workers: int
    busy_gpus: int


def capacity(config: Config, seconds: Durations) -> Capacity:
    """How fleet and train ranks match in a step of `seconds`; all 0 where the engines hold no
    rollout.
    """
    if not math.isfinite(seconds.step):
        return Capacity(0.0, 0, 0)
    # Twice the engines sample a step in half the time, as long as there are rollouts for all.
    workers = max(1, math.ceil(config.rollout.workers * seconds.sampling / seconds.learning))
    return Capacity(
        seconds.learning / seconds.step, workers, workers * config.rollout.tensor_parallel
    )
