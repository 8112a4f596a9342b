"""What one step samples and learns from, in rollouts and tokens."""

from dataclasses import dataclass

from megatron_trace.allocation import strategy_class
from megatron_trace.config import BudgetUnit, Config
from megatron_trace.plan.assumptions import Assumptions


@dataclass(frozen=True)
class Workload:
    """One step in numbers.

    Attributes:
        bare_rollouts, continuations: rollouts of the two stages.
        history: tokens of a finished rollout.
        sampled: tokens that the engines sample.
        prefilled: tokens that the engines compute without sampling them (cached prefixes are left
            out).
        trained: tokens of all rows, which the train ranks compute; a row is a whole history.
        learned: tokens with a policy gradient: each sampled token once.
        passes: forward-only passes over all rows (for old and reference log-probabilities).
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
    tokens_per_rollout = allocation.expected_tokens
    per_rollout = tokens_per_rollout if allocation.unit is BudgetUnit.tokens else 1
    rollouts = -(-allocation.budget // per_rollout)
    strategy = strategy_class(allocation.strategy)
    # Strategies that do not branch spend the whole budget on bare rollouts.
    bare_share = allocation.bare_share or strategy.bare_share
    bare = round(bare_share * rollouts) if strategy.branches else rollouts
    continuations = rollouts - bare
    history = assumptions.history_share * config.rollout.max_history_tokens
    # A continuation computes only what comes after its anchor. Its row is still a whole history.
    whole = bare + continuations * (1.0 - assumptions.branch_depth)
    sampled = whole * history * assumptions.sampled_share
    several_updates = learning.batching.updates_per_step * learning.batching.epochs > 1
    return Workload(
        bare_rollouts=bare,
        continuations=continuations,
        history=history,
        sampled=sampled,
        prefilled=whole * history * (1.0 - assumptions.sampled_share),
        trained=rollouts * history,
        learned=sampled,
        passes=int(several_updates) + int(learning.loss.reference_kl != 0.0),
        epochs=learning.batching.epochs,
    )
