"""Settings that have moved or are gone: an old name is refused with the new one, or the reason."""

from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from megatron_trace.config.error import SettingError

MOVED = {
    "learning.learning_rate": "learning.optimizer.learning_rate",
    "learning.weight_decay": "learning.optimizer.weight_decay",
    "learning.warmup_steps": "learning.optimizer.warmup_steps",
    "learning.learning_rate_decay": "learning.optimizer.decay",
    "learning.decay_steps": "learning.optimizer.decay_steps",
    "learning.min_learning_rate_factor": "learning.optimizer.min_learning_rate_factor",
    "learning.gradient_clip": "learning.optimizer.gradient_clip",
    "learning.advantage_std": "learning.advantage.std",
    "learning.backup": "learning.advantage.backup",
    "learning.gigpo_weight": "learning.advantage.options.gigpo.weight",
    "learning.gigpo_discount": "learning.advantage.options.gigpo.discount",
    "learning.advantage.gigpo_weight": "learning.advantage.options.gigpo.weight",
    "learning.advantage.gigpo_discount": "learning.advantage.options.gigpo.discount",
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
    "environment.options.corpus": "environment.options.search_qa.corpus",
    "environment.options.top_k": "environment.options.search_qa.top_k",
    "environment.options.instruction": "environment.options.search_qa.instruction",
    "environment.options.max_observation_chars": "environment.options.search_qa.max_observation_chars",
}
"""Old dotted name -> new dotted name."""

GONE = {
    **dict.fromkeys(
        [
            f"learning.predictor.{n}"
            for n in ("learning_rate", "hidden", "epochs", "batch", "average")
        ],
        "is gone; leave it out: the predictor is a logistic regression, with "
        "learning.predictor.forgetting and learning.predictor.prior_std",
    ),
    "parallel.context_exchange": "is gone; leave it out: every rank gathers the keys and values of "
    "all ranks",
}
"""Dotted name of a setting that no longer exists -> what to do."""

ABSENT = object()
"""Stands for the value of a setting that a layer does not give; null is a value."""


def refuse_moved(layer: DictConfig) -> None:
    """Refuse the old names in a config file or an override.

    Raises:
        SettingError: there is one; the message names the new place of every old name found.
    """
    given, found = plain_data(layer), {}
    for gone, remedy in GONE.items():
        value = given_value(given, gone)
        if value is not ABSENT:
            raise SettingError(gone, value, remedy)
    for old in MOVED:
        value = given_value(given, old)
        # `learning.advantage` was a name and is a section now.
        if value is not ABSENT and not isinstance(value, dict):
            found[old] = value
    if not found:
        return
    first, value = next(iter(found.items()))
    others = [f"{old} is now {MOVED[old]}" for old in found if old != first]
    raise SettingError(first, value, "; ".join([f"is now {MOVED[first]}", *others]))


def plain_data(layer: DictConfig) -> dict[str, Any]:
    """The layer as nested dicts and lists, interpolations as they are written."""
    return cast(dict[str, Any], OmegaConf.to_container(layer, resolve=False))


def given_value(given: dict[str, Any], name: str) -> Any:
    """The value that a layer's plain data give a dotted name, or `ABSENT`."""
    node: Any = given
    for key in name.split("."):
        if not isinstance(node, dict) or key not in node:
            return ABSENT
        node = node[key]
    return node
