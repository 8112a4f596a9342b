"""Checks of the optimisation settings."""

from megatron_trace.config import (
    Aggregation,
    Config,
    Decay,
    Importance,
    LearningConfig,
    SettingError,
)
from megatron_trace.learning import ADVANTAGES


def check_learning(config: Config) -> None:
    """Refuse optimisation settings that cannot work, alone or together.

    Raises:
        SettingError: at the first setting that cannot.
    """
    learning = config.learning
    _check_schedule(learning)
    _check_advantage(learning)
    _check_terms(learning)
    _check_importance(learning)
    _check_overlong(learning, longest=config.rollout.max_history_tokens)


def check_estimator(config: Config, default: str) -> None:
    """Refuse a strategy whose own estimator there is not, where `learning.advantage` leaves the choice to it.

    Args:
        default: the strategy's `advantage`.

    Raises:
        SettingError: it is unknown.
    """
    if config.learning.advantage is None and default not in ADVANTAGES:
        remedy = f"its advantage, {default!r}, is none of {', '.join(ADVANTAGES)}"
        raise SettingError("allocation.strategy", config.allocation.strategy, remedy)


def _check_schedule(learning: LearningConfig) -> None:
    decay, steps = learning.learning_rate_decay, learning.decay_steps
    if steps is not None and steps < 1:
        raise SettingError("learning.decay_steps", steps, "must be at least 1")
    if decay is not Decay.constant and steps is None:
        remedy = f"learning.learning_rate_decay = {decay.value} needs the optimizer updates over which to fall"
        raise SettingError("learning.decay_steps", steps, remedy)
    factor = learning.min_learning_rate_factor
    if not 0.0 <= factor <= 1.0:
        raise SettingError(
            "learning.min_learning_rate_factor", factor, "must be a share, from 0 to 1"
        )
    if learning.epochs < 1:
        raise SettingError("learning.epochs", learning.epochs, "must be at least 1")


def _check_advantage(learning: LearningConfig) -> None:
    name, discount = learning.advantage, learning.gigpo_discount
    if name is not None and name not in ADVANTAGES:
        raise SettingError("learning.advantage", name, f"is none of {', '.join(ADVANTAGES)}")
    if not learning.gigpo_weight >= 0.0:
        remedy = "must not be negative: steps better than others would be made rarer"
        raise SettingError("learning.gigpo_weight", learning.gigpo_weight, remedy)
    if not 0.0 < discount <= 1.0:
        remedy = "must be above 0 and at most 1: what a reward is worth a turn earlier"
        raise SettingError("learning.gigpo_discount", discount, remedy)


def _check_terms(learning: LearningConfig) -> None:
    if learning.dual_clip is not None and not learning.dual_clip > 1.0:
        remedy = "must be above 1, or null: lower, it would stop learning from tokens that have not changed"
        raise SettingError("learning.dual_clip", learning.dual_clip, remedy)
    if learning.sequence_mask is not None and not learning.sequence_mask >= 0.0:
        remedy = "must not be negative, or null: lower, it would leave out rollouts that have not drifted"
        raise SettingError("learning.sequence_mask", learning.sequence_mask, remedy)
    if not learning.reference_kl >= 0.0:
        remedy = (
            "must not be negative: the policy would be driven away from the reference without end"
        )
        raise SettingError("learning.reference_kl", learning.reference_kl, remedy)
    tokens = learning.dr_grpo_tokens
    if tokens is not None and tokens < 1:
        raise SettingError("learning.dr_grpo_tokens", tokens, "must be at least 1")
    if learning.aggregation is Aggregation.dr_grpo and tokens is None:
        remedy = "learning.aggregation = dr_grpo divides by it; set the most tokens that a rollout may sample"
        raise SettingError("learning.dr_grpo_tokens", tokens, remedy)


def _check_importance(learning: LearningConfig) -> None:
    floor, cap = learning.importance_floor, learning.importance_cap
    if not floor >= 0.0:
        raise SettingError("learning.importance_floor", floor, "must not be negative")
    if learning.importance is Importance.mask and not floor <= 1.0 <= cap:
        name, value = ("floor", floor) if floor > 1.0 else ("cap", cap)
        remedy = "must be at most 1" if name == "floor" else "must be at least 1"
        reason = "or learning.importance = mask leaves out every token on which trainer and sampler agree"
        raise SettingError(f"learning.importance_{name}", value, f"{remedy}, {reason}")


def _check_overlong(learning: LearningConfig, longest: int) -> None:
    if not 0 <= learning.overlong_buffer <= longest:
        remedy = f"must be from 0 to rollout.max_history_tokens ({longest}), in which it lies"
        raise SettingError("learning.overlong_buffer", learning.overlong_buffer, remedy)
    if not learning.overlong_penalty > 0.0:
        remedy = "must be positive; learning.overlong_buffer = 0 turns it off"
        raise SettingError("learning.overlong_penalty", learning.overlong_penalty, remedy)
