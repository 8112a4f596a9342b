"""The knobs of a simulated world."""

from dataclasses import dataclass

from megatron_trace.config import SettingError, check_bounds, setting

MOST_NODES = 60_000_000
"""Histories that a world may hold; a few arrays of eight bytes each are kept for all of them."""

PREDICTORS = ("drawn", "learned")

OF_DRAWN = ("noise", "prefix_noise", "band_noise", "bias", "delay")
"""Knobs that say how a drawn predictor errs."""


@dataclass(frozen=True)
class WorldConfig:
    """Random decision trees, one a task; docs/simulator.md explains each knob.

    Shares and chances are in [0, 1].
    """

    seed: int = setting(0, "the worlds of two seeds are independent")
    tasks: int = setting(1024, "number of tasks")
    success: float = setting(0.5, "mean success probability of the tasks under the start policy")
    spread: float = setting(
        0.4,
        "variance of the tasks' success, as a share of the largest possible; from 1/3 most tasks are extreme",
    )
    depth: int = setting(5, "most turns of an episode")
    actions: int = setting(3, "actions that the policy chooses among at every turn")
    informative: float = setting(
        0.5, "share of the turns whose action matters (the last one always does)"
    )
    decides: float = setting(
        0.4, "of the outcome's variance that is still open, what an informative turn settles"
    )
    early: float = setting(0.1, "chance that a turn before the deepest is the last one")
    graded: bool = setting(
        False, "terminal rewards lie between 0 and 1 instead of being one of them"
    )
    prompt_tokens: int = setting(16, "tokens of a prompt")
    action_tokens: int = setting(12, "mean tokens of an action")
    observation_tokens: int = setting(8, "mean tokens of an observation")
    token_spread: float = setting(
        0.4, "standard deviation of the log of a task's and of a turn's length"
    )
    bands: int = setting(4, "groups of tasks, by roughly their difficulty, that share skills")
    skills: int = setting(4, "skills (parameters of the policy) of each band and depth")
    consistency: float = setting(
        0.9, "share of the turns at which more of the skill helps; at the others it harms"
    )
    predictor: str = setting(
        "drawn",
        "the true success with an error in its logit, or learned from the outcomes of the steps",
        one_of=PREDICTORS,
    )
    noise: float = setting(0.7, "standard deviation of the predictor's error, in logits")
    prefix_noise: float | None = setting(None, "the same at prefixes; null: as at roots")
    band_noise: float = setting(
        0.0,
        "standard deviation of an error that lasts and that all tasks of a band share, in logits",
    )
    bias: float = setting(0.0, "mean error of the predictor, in logits")
    delay: int = setting(0, "policy updates by which the predictor lags")
    embedding_noise: float = setting(
        1.0, "standard deviation of the noise in a prompt's embedding; difficulty has 1"
    )

    @property
    def nodes(self) -> int:
        """Places in one task's decision tree, the root included."""
        return sum(self.actions**level for level in range(self.depth + 1))


def check_world(config: WorldConfig) -> None:
    """Refuse a world that cannot be made.

    Raises:
        SettingError: at the first setting that is wrong.
    """
    check_bounds(config, "world.")
    for name in ("spread", "informative", "decides", "early", "consistency"):
        if not 0.0 <= getattr(config, name) <= 1.0:
            raise SettingError(f"world.{name}", getattr(config, name), "must lie between 0 and 1")
    for name in (
        "tasks",
        "depth",
        "prompt_tokens",
        "action_tokens",
        "observation_tokens",
        "bands",
        "skills",
    ):
        if getattr(config, name) < 1:
            raise SettingError(f"world.{name}", getattr(config, name), "must be at least 1")
    for name in ("token_spread", "noise", "prefix_noise", "band_noise", "delay", "embedding_noise"):
        if (getattr(config, name) or 0) < 0:
            raise SettingError(f"world.{name}", getattr(config, name), "must not be negative")
    if not 0.0 < config.success < 1.0:
        raise SettingError(
            "world.success", config.success, "must lie between 0 and 1, and be neither"
        )
    if config.actions < 2:
        raise SettingError("world.actions", config.actions, "must be at least 2: a policy chooses")
    if config.predictor == "learned":
        for name in OF_DRAWN:
            if getattr(config, name) != getattr(WorldConfig, name):
                remedy = "belongs to predictor=drawn; how a learned one errs, it learns"
                raise SettingError(f"world.{name}", getattr(config, name), remedy)
    if config.tasks * config.nodes > MOST_NODES:
        remedy = f"{config.tasks} trees of {config.nodes} histories are more than {MOST_NODES:.0e}; lower one of them"
        raise SettingError("world.depth", config.depth, f"with {config.actions} actions, {remedy}")
