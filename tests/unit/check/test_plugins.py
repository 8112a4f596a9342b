"""What the settings give to plug-ins and to the model's chat template."""

import pytest

from megatron_trace.check.plugins import check_environment, check_maps, load_map
from megatron_trace.config import SettingError
from megatron_trace.config.sources import Source
from tests.unit.check.models import settings


def test_the_chat_template_may_be_given_anything_that_it_reads() -> None:
    check_environment(settings(environment__chat_template={"enable_thinking": False}))


def test_what_the_program_itself_chooses_is_refused() -> None:
    message = r"environment\.chat_template\.tokenize = False: is chosen by the program"
    with pytest.raises(SettingError, match=message):
        check_environment(settings(environment__chat_template={"tokenize": False}))


def test_a_function_that_cannot_be_found_is_refused_and_none_is_needed() -> None:
    assert load_map(Source("data.train", "tasks.jsonl")) is None
    check_maps(settings())
    with pytest.raises(SettingError, match=r"^data\.map = 'gone\.py:to_task': no such file"):
        check_maps(settings(data__map="gone.py:to_task"))
    with pytest.raises(SettingError, match=r"^data\.map = '': must be FILE\.py:FUNCTION"):
        check_maps(settings(data__map=""))
