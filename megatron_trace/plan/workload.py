"""What one step samples and learns from, in rollouts and tokens."""

from dataclasses import dataclass

from megatron_trace.allocation import strategy_class
from megatron_trace.config import BudgetUnit, Config, Pack
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
        path: tokens of all rows; a row is a whole history.
        computed: tokens that the train ranks compute for them in a pass.
        learned: tokens with a policy gradient: each sampled token once.
        passes: forward-only passes over all rows (for old and reference log-probabilities).
        epochs: training passes over all rows.
    """

    bare_rollouts: int
    continuations: int
    history: float
    sampled: float
    prefilled: float
    path: float
    computed: float
    learned: float
    passes: int
    epochs: int

    @property
    def reuse(self) -> float:
        """Path tokens for each token that is computed."""
        return self.path / self.computed

    @property
    def depth(self) -> float:
        """Mean tokens of history that a computed token attends to.

        A row shares its first s tokens, and the h - s that are computed lie at (h + s) / 2 on
        average. With reuse h / (h - s) that is h · (1 - 1 / (2 · reuse)).
        """
        return self.history * (1.0 - 0.5 / self.reuse)


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
    path = computed = rollouts * history
    if learning.batching.pack is Pack.tree:
        # Rollouts of a tree share its prompt.
        trees = min(bare, rollouts / assumptions.tree_rollouts)
        computed = (whole - (bare - trees) * assumptions.prompt_share) * history
        if assumptions.tree_reuse:
            computed = path / assumptions.tree_reuse
    several_updates = learning.batching.updates_per_step * learning.batching.epochs > 1
    return Workload(
        bare_rollouts=bare,
        continuations=continuations,
        history=history,
        sampled=sampled,
        prefilled=whole * history * (1.0 - assumptions.sampled_share),
        path=path,
        computed=computed,
        learned=min(sampled, computed),
        passes=int(several_updates) + int(learning.loss.reference_kl != 0.0),
        epochs=learning.batching.epochs,
    )
