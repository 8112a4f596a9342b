"""How turns are written is checked before anything starts."""

import pytest

from megatron_trace.check.chat import load_turns
from megatron_trace.check.load import load_config
from megatron_trace.config import SettingError
from megatron_trace.envs import Environment
from tests.unit.models.tokenizers import make_codec


@pytest.mark.parametrize(
    ("family", "chat", "setting", "message"),
    [
        ("qwen3", True, "environment.renderer=qwen4", "no such family"),
        ("llama3", True, "environment.thoughts=strip", "set keep"),
        ("qwen3", False, "environment.thoughts=strip", "only chats"),
    ],
)
def test_a_setting_that_does_not_fit_is_named(
    family: str, chat: bool, setting: str, message: str
) -> None:
    class Talk(Environment):
        stop = ()

    Talk.chat = chat
    name, _, value = setting.partition("=")
    with pytest.raises(SettingError, match=message) as caught:
        load_turns(load_config(None, [setting]), make_codec(family), Talk)  # type: ignore[arg-type]
    assert str(caught.value).startswith(f"{name} = {value!r}")
