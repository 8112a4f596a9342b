"""What one GPU of a vLLM engine holds, and how many histories fit at once."""

from dataclasses import dataclass

from megatron_trace.config import Config
from megatron_trace.plan.assumptions import Assumptions
from megatron_trace.plan.machines import GIB, Gpu
from megatron_trace.plan.shape import Shape


@dataclass(frozen=True)
class EngineMemory:
    """Bytes of one GPU of an engine, and what the engine's cache holds.

    Attributes:
        weights: its share of the policy.
        reserve: what the plan does not count.
        cache: what is left for keys and values; negative where the weights alone are too large.
        token: bytes of one token's keys and values.
        cached_tokens: tokens that fit into the engine's cache.
        histories: histories of the maximum length that fit at once.
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
        """Whether at least one history of the maximum length fits."""
        return self.histories >= 1


def rollout_bytes(config: Config) -> int:
    """Bytes of a weight, and of an element of keys and values, on an engine."""
    return 4 if config.precision.rollout == "float32" else 2


def engine_memory(shape: Shape, config: Config, gpu: Gpu, assumptions: Assumptions) -> EngineMemory:
    """Memory of a `gpu` of the engine that `config.rollout` asks for."""
    rollout = config.rollout
    width = rollout_bytes(config)
    weights = width * shape.weights // rollout.tensor_parallel
    # With more GPUs than key-value heads, vLLM gives every GPU a copy of one head.
    heads = max(shape.kv_heads // rollout.tensor_parallel, 1)
    token = 2 * width * shape.layers * heads * shape.head_width
    if gpu.name == "cpu":
        # vLLM on the CPU allocates its cache by size; on a GPU it takes what is left of its share.
        reserve, cache = 0, rollout.cpu_cache_gib * GIB
    else:
        reserve = round(assumptions.rollout_reserve_gib * GIB)
        cache = round(rollout.memory * gpu.memory) - weights - reserve
    cached_tokens = max(cache, 0) // token
    mean_history = assumptions.history_share * rollout.max_history_tokens
    return EngineMemory(
        weights=weights,
        reserve=reserve,
        cache=cache,
        token=token,
        cached_tokens=cached_tokens,
        histories=cached_tokens // rollout.max_history_tokens,
        live=min(rollout.concurrency, int(cached_tokens // mean_history)),
    )
