"""What the plan assumes because nobody can know it before a run. Each is a flag of tools/plan_cluster.py."""

import math
from dataclasses import dataclass, field, fields
from typing import Any

from megatron_trace.allocation import strategy_class
from megatron_trace.config import BudgetUnit, Config, SettingError
from megatron_trace.plan.words import flag

SHARES = ("_utilisation", "_fullness", "_share", "_depth")
"""How the names of shares end; all others are sizes and times."""


def assumed(default: Any, meaning: str) -> Any:
    """A number with its meaning, which the plan prints."""
    return field(default=default, metadata={"meaning": meaning})


@dataclass(frozen=True)
class Assumptions:
    """Shares of the stated peaks, sizes that are not counted, and the workload."""

    train_utilisation: float = assumed(
        0.40, "share of the peak FLOP/s that the train ranks' matrix products reach"
    )
    prefill_utilisation: float = assumed(
        0.50, "share of the peak FLOP/s that an engine reaches on prompts"
    )
    decode_utilisation: float = assumed(
        0.60, "share of the memory bandwidth that an engine reaches while sampling"
    )
    link_utilisation: float = assumed(
        0.70, "share of NVLink's and the network's bandwidth that is reached"
    )
    decode_overhead_ms: float = assumed(
        4.0, "time of one decoding step beside reading memory, in ms"
    )
    collective_us: float = assumed(
        12.0,
        "latency of a small all-reduce among an engine's GPUs, in µs; two for each layer and token",
    )
    decode_fullness: float = assumed(
        0.60,
        "live rollouts over a phase, as a share of what an engine holds at once (the tail is thin)",
    )
    packing_fullness: float = assumed(0.95, "share of a micro-batch that is tokens")
    train_reserve_gib: float = assumed(
        5.0,
        "GiB of a train GPU for CUDA, NCCL, cuBLAS, fragments and the tensors of a weight transfer",
    )
    rollout_reserve_gib: float = assumed(
        5.0, "GiB of an engine's share for CUDA, graphs, activations and the sampler"
    )
    history_share: float = assumed(
        0.50, "mean history of a finished rollout, as a share of max_history_tokens"
    )
    sampled_share: float = assumed(
        0.50, "sampled tokens of a history; the rest is prompt and observations"
    )
    branch_depth: float = assumed(0.50, "where a continuation branches, as a share of the history")


def check_assumptions(assumptions: Assumptions) -> None:
    """Refuse shares outside (0, 1] and negative sizes.

    Raises:
        SettingError: at the first, named by its flag.
    """
    for each in fields(assumptions):
        value = getattr(assumptions, each.name)
        if each.name.endswith(SHARES):
            if not 0.0 < value <= 1.0:
                raise SettingError(flag(each.name), value, "must be a share, above 0 and at most 1")
        elif not 0.0 <= value < math.inf:
            raise SettingError(flag(each.name), value, "must not be negative, nor infinite")


@dataclass(frozen=True)
class Workload:
    """One step in numbers.

    Attributes:
        bare_rollouts, continuations: rollouts of the two stages.
        history: tokens of a finished rollout.
        sampled: tokens that the engines sample.
        prefilled: tokens that they compute and do not sample (their prefixes are cached).
        trained: tokens of all rows, which the train ranks compute; a row is a whole history.
        learned: tokens with a policy gradient: each sampled one once.
        passes: forward-only passes over all rows beside the training passes (old and reference log-probabilities).
        epochs: training passes over all rows.
    """

    bare_rollouts: int
    continuations: int
    history: float
    sampled: float
    prefilled: float
    trained: float
    learned: float
    passes: int
    epochs: int


def workload(config: Config, assumptions: Assumptions) -> Workload:
    """The step that `config` asks for, with rollouts of the assumed length."""
    allocation, learning = config.allocation, config.learning
    per_rollout = allocation.expected_tokens if allocation.unit is BudgetUnit.tokens else 1
    rollouts = -(-allocation.budget // per_rollout)
    strategy = strategy_class(allocation.strategy)
    share = allocation.bare_share or strategy.bare_share
    bare = round(share * rollouts) if strategy.branches else rollouts
    continuations = rollouts - bare
    history = assumptions.history_share * config.rollout.max_history_tokens
    whole = bare + continuations * (1.0 - assumptions.branch_depth)
    sampled = whole * history * assumptions.sampled_share
    several = learning.batching.updates_per_step * learning.batching.epochs > 1
    return Workload(
        bare_rollouts=bare,
        continuations=continuations,
        history=history,
        sampled=sampled,
        prefilled=whole * history * (1.0 - assumptions.sampled_share),
        trained=rollouts * history,
        learned=sampled,
        passes=int(several) + int(learning.loss.reference_kl != 0.0),
        epochs=learning.batching.epochs,
    )
