"""What one GPU of a vLLM engine holds, and how many histories fit at once."""

from dataclasses import dataclass

from megatron_trace.config import Config
from megatron_trace.plan.assumptions import Assumptions
from megatron_trace.plan.machines import GIB, Gpu
from megatron_trace.plan.shape import Shape


@dataclass(frozen=True)
class EngineMemory:
    """Bytes of one GPU of an engine.

    Attributes:
        weights: its share of the policy.
        reserve: what the plan does not count.
        cache: what is left for keys and values; negative where the weights alone are too large.
        token: bytes of one token's keys and values.
        cached_tokens: tokens that fit into the cache of the engine.
        histories: of the longest histories that fit at once.
        live: rollouts that run at once: `rollout.concurrency`, or as many of mean length as fit.
    """

    weights: int
    reserve: int
    cache: int
    token: int
    cached_tokens: int
    histories: int
    live: int

    @property
    def fits(self) -> bool:
        """Whether at least one longest history fits."""
        return self.histories >= 1


def engine_memory(shape: Shape, config: Config, gpu: Gpu, assumptions: Assumptions) -> EngineMemory:
    """Of the engine that `config.rollout` asks for on `gpu`."""
    rollout = config.rollout
    width = 4 if config.precision.rollout == "float32" else 2
    weights = width * shape.weights // rollout.tensor_parallel
    groups = max(shape.groups // rollout.tensor_parallel, 1)
    token = 2 * width * shape.layers * groups * shape.head
    if gpu.name == "cpu":
        reserve, cache = 0, rollout.cpu_cache_gib * GIB
    else:
        reserve = round(assumptions.rollout_reserve_gib * GIB)
        cache = round(rollout.memory * gpu.memory) - weights - reserve
    tokens = max(cache, 0) // token
    mean = assumptions.history_share * rollout.max_history_tokens
    return EngineMemory(
        weights=weights,
        reserve=reserve,
        cache=cache,
        token=token,
        cached_tokens=tokens,
        histories=tokens // rollout.max_history_tokens,
        live=min(rollout.concurrency, int(tokens // mean)),
    )
