"""A setting's old name is refused with the new one, and a setting that is gone with the reason."""

import pytest

from megatron_trace.allocation import STRATEGIES
from megatron_trace.check.load import load_config
from megatron_trace.config import Config, SettingError, all_settings
from megatron_trace.config.moved import GONE, MOVED
from megatron_trace.envs import ENVIRONMENTS
from megatron_trace.learning import ESTIMATORS


@pytest.mark.parametrize(("old", "new"), list(MOVED.items()))
def test_an_old_name_is_refused_with_the_new_one(old: str, new: str) -> None:
    with pytest.raises(SettingError, match=rf"^{old} = 1: is now {new}$"):
        load_config(None, [f"{old}=1"])


@pytest.mark.parametrize(("gone", "remedy"), list(GONE.items()))
def test_a_setting_that_is_gone_is_refused_with_what_to_do(gone: str, remedy: str) -> None:
    with pytest.raises(SettingError, match=rf"^{gone} = 'p2p': {remedy}$"):
        load_config(None, [f"{gone}=p2p"])


def test_a_file_with_several_old_names_gets_all_new_ones_at_once(tmp_path) -> None:
    file = tmp_path / "old.yaml"
    file.write_text("learning: {clip_low: 0.1, epochs: 2}")
    with pytest.raises(SettingError) as error:
        load_config(str(file))
    assert str(error.value) == (
        "learning.clip_low = 0.1: is now learning.loss.clip_low; "
        "learning.epochs is now learning.batching.epochs"
    )


def test_new_names_exist() -> None:
    known = {one.name for one in all_settings(Config())}
    for kind in (STRATEGIES, ESTIMATORS, ENVIRONMENTS):
        for name in kind.names():
            options = all_settings(kind.options_class(name), f"{kind.section}.{name}.")
            known |= {one.name for one in options}
    assert set(MOVED.values()) <= known
    assert not known & GONE.keys()


def test_an_advantage_section_is_not_taken_for_the_old_name() -> None:
    assert load_config(None, ["learning.advantage.name=grpo"]).learning.advantage.name == "grpo"
