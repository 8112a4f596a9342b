"""Settings of learning that cannot work are refused with name, value and remedy."""

import re
from pathlib import Path

import pytest

from megatron_trace.check.learning import check_learning
from megatron_trace.check.load import load_config
from megatron_trace.check.plugins import check_estimator
from megatron_trace.config import Config, LearningConfig, SettingError, check_bounds


def check(*settings: str) -> None:
    overrides = [f"learning.{setting}" for setting in settings]
    config = load_config(None, [*overrides, "rollout.max_history_tokens=100"])
    check_bounds(config)
    check_learning(config)
    check_estimator(config)


@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["loss.aggregation=sequence", "loss.reference_kl=0.04"],
        ["loss.aggregation=dr_grpo", "loss.dr_grpo_tokens=512", "advantage.std=false"],
        ["advantage.overlong_buffer=100", "advantage.overlong_penalty=0.5"],
        ["loss.ratio=sequence", "loss.clip_low=3e-4", "loss.clip_high=4e-4"],
        ["loss.sequence_mask=0.0", "advantage.filter_groups=true"],
        ["loss.importance=mask", "loss.importance_floor=0.5", "loss.importance_cap=5.0"],
        ["optimizer.decay=cosine", "optimizer.decay_steps=10"],
        ["optimizer.min_learning_rate_factor=1.0"],
        ["loss.importance=truncate", "loss.importance_floor=0.5"],
        ["loss.entropy_bonus=-0.01", "loss.dual_clip=3.0"],
        [
            "advantage.name=gigpo",
            "advantage.options.gigpo.weight=0.0",
            "advantage.options.gigpo.discount=1.0",
        ],
        ["advantage.name=at2po", "loss.ratio=turn", "advantage.backup=unbiased"],
        ["predictor.forgetting=0.0", "predictor.prior_std=0.01"],
    ],
)
def test_what_can_work_is_accepted(settings: list[str]) -> None:
    check(*settings)


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
    check_bounds(config)
    check_learning(config)
    assert config.learning != LearningConfig()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["optimizer.decay=linear"], r"optimizer.decay_steps = None: .*decay = linear needs"),
        (["optimizer.decay_steps=0"], r"optimizer.decay_steps = 0: must be at least 1, or null"),
        (
            ["optimizer.min_learning_rate_factor=1.1"],
            r"optimizer.min_learning_rate_factor = 1.1: must be at least 0 and at most 1",
        ),
        (
            ["advantage.name=xyz"],
            r"advantage.name = 'xyz': no such estimator; there is at2po, belief,",
        ),
        (["advantage.name=rlo"], r"advantage.name = 'rlo': no such estimator; did you mean rloo\?"),
        (
            ["advantage.options.gigpo.weight=-1.0"],
            r"advantage.options.gigpo.weight = -1.0: must be at least 0: a negative",
        ),
        (
            ["advantage.options.gigpo.wieght=2"],
            r"advantage.options.gigpo.wieght = 2: no such option; did you mean "
            r"learning.advantage.options.gigpo.weight\?$",
        ),
        (
            ["advantage.options.gigp.weight=2"],
            r"advantage.options.gigp = \{'weight': 2\}: no such estimator; did you mean gigpo\?",
        ),
        (["advantage.options.gigpo=2"], r"advantage.options.gigpo = 2: is a section; write"),
        (
            ["advantage.options.gigpo.discount=0.0"],
            r"advantage.options.gigpo.discount = 0.0: must be above 0",
        ),
        (
            ["advantage.options.gigpo.discount=.nan"],
            r"advantage.options.gigpo.discount = nan: must be a finite number",
        ),
        (["batching.epochs=0"], r"batching.epochs = 0: must be at least 1"),
        (["loss.dual_clip=1.0"], r"loss.dual_clip = 1.0: must be above 1, or null: with a lower"),
        (["loss.clip_low=1.0"], r"loss.clip_low = 1.0: must be above 0 and below 1"),
        (["loss.sequence_mask=-0.1"], r"loss.sequence_mask = -0.1: must be at least 0, or null"),
        (["loss.reference_kl=-1.0"], r"loss.reference_kl = -1.0: must be at least 0"),
        (["loss.aggregation=dr_grpo"], r"loss.dr_grpo_tokens = None: .*dr_grpo divides by it"),
        (["loss.dr_grpo_tokens=0"], r"loss.dr_grpo_tokens = 0: must be at least 1"),
        (["loss.importance_floor=-0.5"], r"loss.importance_floor = -0.5: must be at least 0"),
        (
            ["loss.importance=mask", "loss.importance_floor=1.5"],
            r"loss.importance_floor = 1.5: must be at most 1",
        ),
        (
            ["loss.importance=mask", "loss.importance_cap=0.9"],
            r"loss.importance_cap = 0.9: must be at least 1",
        ),
        (
            ["advantage.overlong_buffer=101"],
            r"advantage.overlong_buffer = 101: .*max_history_tokens \(100\)",
        ),
        (["advantage.overlong_buffer=-1"], r"advantage.overlong_buffer = -1: must be at least 0"),
        (["advantage.overlong_penalty=0.0"], r"advantage.overlong_penalty = 0.0: must be above 0"),
        (
            ["predictor.forgetting=1.0"],
            r"predictor.forgetting = 1.0: must be at least 0 and below 1",
        ),
        (
            ["predictor.forgetting=-0.1"],
            r"predictor.forgetting = -0.1: must be at least 0 and below 1",
        ),
        (["predictor.prior_std=0.0"], r"predictor.prior_std = 0.0: must be above 0"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(settings: list[str], message: str) -> None:
    with pytest.raises(SettingError) as error:
        check(*settings)
    assert re.search(rf"^learning.{message}", str(error.value))
    assert "\n" not in str(error.value)


def test_a_strategys_own_estimator_is_looked_up_before_the_run(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from megatron_trace.allocation import Strategy\n\n\n"
        "class Mine(Strategy):\n    advantage = 'rlooo'\n"
    )
    config = Config()
    config.allocation.strategy = str(file)
    with pytest.raises(
        SettingError,
        match=r"allocation.strategy = '.*mine.py': its estimator cannot be used: .*'rlooo': no such",
    ):
        check_estimator(config)
    config.learning.advantage.name = "grpo"
    check_estimator(config)
