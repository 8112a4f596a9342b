"""Settings that have moved: an old name is refused with the new one."""

from typing import Any

from omegaconf import DictConfig

from megatron_trace.config.error import SettingError

MOVED = {
    "learning.learning_rate": "learning.optimizer.learning_rate",
    "learning.weight_decay": "learning.optimizer.weight_decay",
    "learning.warmup_steps": "learning.optimizer.warmup_steps",
    "learning.learning_rate_decay": "learning.optimizer.decay",
    "learning.decay_steps": "learning.optimizer.decay_steps",
    "learning.min_learning_rate_factor": "learning.optimizer.min_learning_rate_factor",
    "learning.gradient_clip": "learning.optimizer.gradient_clip",
    "learning.predictor_learning_rate": "learning.predictor.learning_rate",
    "learning.predictor_hidden": "learning.predictor.hidden",
    "learning.predictor_epochs": "learning.predictor.epochs",
    "learning.predictor_batch": "learning.predictor.batch",
    "learning.predictor_average": "learning.predictor.average",
    "learning.advantage_std": "learning.advantage.std",
    "learning.backup": "learning.advantage.backup",
    "learning.gigpo_weight": "learning.advantage.gigpo_weight",
    "learning.gigpo_discount": "learning.advantage.gigpo_discount",
    "learning.filter_groups": "learning.advantage.filter_groups",
    "learning.overlong_buffer": "learning.advantage.overlong_buffer",
    "learning.overlong_penalty": "learning.advantage.overlong_penalty",
    "learning.advantage": "learning.advantage.name",
    "learning.ratio": "learning.loss.ratio",
    "learning.clip_low": "learning.loss.clip_low",
    "learning.clip_high": "learning.loss.clip_high",
    "learning.dual_clip": "learning.loss.dual_clip",
    "learning.sequence_mask": "learning.loss.sequence_mask",
    "learning.importance_cap": "learning.loss.importance_cap",
    "learning.importance_floor": "learning.loss.importance_floor",
    "learning.importance": "learning.loss.importance",
    "learning.aggregation": "learning.loss.aggregation",
    "learning.dr_grpo_tokens": "learning.loss.dr_grpo_tokens",
    "learning.reference_kl": "learning.loss.reference_kl",
    "learning.entropy_bonus": "learning.loss.entropy_bonus",
    "learning.updates_per_step": "learning.batching.updates_per_step",
    "learning.epochs": "learning.batching.epochs",
    "learning.micro_batch_tokens": "learning.batching.micro_batch_tokens",
}
"""Old dotted name -> new dotted name."""


def refuse_moved(layer: DictConfig) -> None:
    """Refuse the old names in a config file or an override.

    Raises:
        SettingError: there is one; the message names the new place of every old name found.
    """
    section: Any = layer.get("learning")
    if not isinstance(section, DictConfig):
        return
    found = {
        old: section[key]
        for key in section
        # `learning.advantage` was a name and is a section now.
        if (old := f"learning.{key}") in MOVED and not isinstance(section[key], DictConfig)
    }
    if not found:
        return
    first, value = next(iter(found.items()))
    others = [f"{old} is now {MOVED[old]}" for old in found if old != first]
    raise SettingError(first, value, "; ".join([f"is now {MOVED[first]}", *others]))
