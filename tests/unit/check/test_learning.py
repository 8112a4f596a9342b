"""Optimisation settings that cannot work are refused with name, value and remedy."""

import re
from pathlib import Path
from typing import Any

import pytest

from megatron_trace.check.command import load_config
from megatron_trace.check.learning import check_estimator, check_learning
from megatron_trace.config import (
    Aggregation,
    Backup,
    Config,
    Decay,
    Importance,
    LearningConfig,
    Ratio,
    RolloutConfig,
    SettingError,
)


def check(**settings: Any) -> None:
    check_learning(
        Config(learning=LearningConfig(**settings), rollout=RolloutConfig(max_history_tokens=100))
    )


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"aggregation": Aggregation.sequence, "reference_kl": 0.04},
        {"aggregation": Aggregation.dr_grpo, "dr_grpo_tokens": 512, "advantage_std": False},
        {"overlong_buffer": 100, "overlong_penalty": 0.5, "filter_groups": True},
        {"ratio": Ratio.sequence, "clip_low": 3e-4, "clip_high": 4e-4, "sequence_mask": 0.0},
        {"importance": Importance.mask, "importance_floor": 0.5, "importance_cap": 5.0},
        {"learning_rate_decay": Decay.cosine, "decay_steps": 10, "min_learning_rate_factor": 1.0},
        {"importance": Importance.truncate, "importance_floor": 0.5},
        {"entropy_bonus": -0.01, "dual_clip": 3.0},
        {"advantage": "gigpo", "gigpo_weight": 0.0, "gigpo_discount": 1.0},
        {"advantage": "at2po", "ratio": Ratio.turn, "backup": Backup.unbiased},
    ],
)
def test_what_can_work_is_accepted(settings: dict[str, Any]) -> None:
    check(**settings)


def presets() -> dict[str, str]:
    """The methods that the documentation writes as settings: name -> YAML."""
    (block,) = re.findall(r"```yaml\n(.*?)```", Path("docs/optimisation.md").read_text(), re.DOTALL)
    return {text[2:].split(" (")[0]: text for text in block.split("\n\n")}


@pytest.mark.parametrize("method", ["GRPO", "Dr. GRPO", "DAPO", "GSPO", "SAMPO", "AT²PO"])
def test_a_method_of_the_documentation_is_nothing_but_settings_that_work(
    method: str, tmp_path: Path
) -> None:
    (tmp_path / "method.yaml").write_text(presets()[method])
    config = load_config(str(tmp_path / "method.yaml"))
    check_learning(config)
    assert config.learning != LearningConfig()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"learning_rate_decay": Decay.linear},
            r"learning.decay_steps = None: .*decay = linear needs",
        ),
        ({"decay_steps": 0}, r"learning.decay_steps = 0: must be at least 1"),
        (
            {"min_learning_rate_factor": 1.1},
            r"learning.min_learning_rate_factor = 1.1: must be a share",
        ),
        ({"advantage": "gae"}, r"learning.advantage = 'gae': is none of at2po, gigpo, grpo,"),
        ({"gigpo_weight": -1.0}, r"learning.gigpo_weight = -1.0: must not be negative"),
        ({"gigpo_discount": 0.0}, r"learning.gigpo_discount = 0.0: must be above 0"),
        ({"gigpo_discount": float("nan")}, r"learning.gigpo_discount = nan: must be above 0"),
        ({"epochs": 0}, r"learning.epochs = 0: must be at least 1"),
        ({"dual_clip": 1.0}, r"learning.dual_clip = 1.0: must be above 1"),
        ({"sequence_mask": -0.1}, r"learning.sequence_mask = -0.1: must not be negative"),
        ({"reference_kl": -1.0}, r"learning.reference_kl = -1.0: must not be negative"),
        ({"reference_kl": float("nan")}, r"learning.reference_kl = nan: must not be negative"),
        (
            {"aggregation": Aggregation.dr_grpo},
            r"learning.dr_grpo_tokens = None: .*dr_grpo divides by it",
        ),
        ({"dr_grpo_tokens": 0}, r"learning.dr_grpo_tokens = 0: must be at least 1"),
        ({"importance_floor": -0.5}, r"learning.importance_floor = -0.5: must not be negative"),
        (
            {"importance": Importance.mask, "importance_floor": 1.5},
            r"learning.importance_floor = 1.5: must be at most 1",
        ),
        (
            {"importance": Importance.mask, "importance_cap": 0.9},
            r"learning.importance_cap = 0.9: must be at least 1",
        ),
        ({"overlong_buffer": 101}, r"learning.overlong_buffer = 101: .*max_history_tokens \(100\)"),
        ({"overlong_buffer": -1}, r"learning.overlong_buffer = -1: must be from 0"),
        ({"overlong_penalty": 0.0}, r"learning.overlong_penalty = 0.0: must be positive"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError) as error:
        check(**settings)
    assert re.search(message, str(error.value))
    assert "\n" not in str(error.value)


def test_a_strategys_own_estimator_is_looked_up_before_the_run() -> None:
    config = Config(learning=LearningConfig())
    config.allocation.strategy = "mine.py"
    check_estimator(config, "rloo")
    with pytest.raises(
        SettingError, match=r"allocation.strategy = 'mine.py': its advantage, 'gea', is none of"
    ):
        check_estimator(config, "gea")
    config.learning.advantage = "grpo"
    check_estimator(config, "gea")
