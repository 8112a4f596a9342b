"""Settings of learning that must agree. Bounds of single settings stand beside the settings."""

from megatron_trace.config import (
    AdvantageConfig,
    Aggregation,
    Config,
    Decay,
    Importance,
    LossConfig,
    OptimizerConfig,
    SettingError,
)


def check_learning(config: Config) -> None:
    """Refuse settings of learning that cannot work together.

    Raises:
        SettingError: at the first such setting.
    """
    learning = config.learning
    _check_schedule(learning.optimizer)
    _check_aggregation(learning.loss)
    _check_importance(learning.loss)
    _check_advantage(learning.advantage, longest=config.rollout.max_history_tokens)


def _check_schedule(optimizer: OptimizerConfig) -> None:
    if optimizer.decay is not Decay.constant and optimizer.decay_steps is None:
        remedy = (
            f"learning.optimizer.decay = {optimizer.decay.value} needs the number of optimizer "
            "updates in which the learning rates fall"
        )
        raise SettingError("learning.optimizer.decay_steps", None, remedy)


def _check_aggregation(loss: LossConfig) -> None:
    if loss.aggregation is Aggregation.dr_grpo and loss.dr_grpo_tokens is None:
        remedy = (
            "learning.loss.aggregation = dr_grpo divides by it; set the most tokens that a rollout "
            "may sample"
        )
        raise SettingError("learning.loss.dr_grpo_tokens", None, remedy)


def _check_importance(loss: LossConfig) -> None:
    if loss.importance is not Importance.mask:
        return
    # Trainer and sampler agree on most tokens, and there the weight is 1. A range without 1 would
    # mask nearly all tokens, and the run would learn from the few on which the two disagree.
    reason = (
        "learning.loss.importance = mask leaves out every token on which trainer and sampler agree"
    )
    if loss.importance_floor > 1.0:
        remedy = f"must be at most 1, or {reason}"
        raise SettingError("learning.loss.importance_floor", loss.importance_floor, remedy)
    if loss.importance_cap < 1.0:
        remedy = f"must be at least 1, or {reason}"
        raise SettingError("learning.loss.importance_cap", loss.importance_cap, remedy)


def _check_advantage(advantage: AdvantageConfig, longest: int) -> None:
    if advantage.overlong_buffer > longest:
        remedy = (
            f"must be at most rollout.max_history_tokens ({longest}), which the buffer is part of"
        )
        raise SettingError("learning.advantage.overlong_buffer", advantage.overlong_buffer, remedy)
