"""Settings as one flat mapping, and where two such mappings differ."""

from megatron_trace.config import Config
from megatron_trace.config.flatten import Difference, differences, flat_settings


def test_settings_have_dotted_names_and_plain_values() -> None:
    flat = flat_settings(Config())
    assert flat["run.seed"] == Config().run.seed
    assert flat["allocation.unit"] == "rollouts"


def test_differing_settings_are_listed_by_name_with_both_values() -> None:
    first = {"b": 1, "a": 1, "same": 2}
    second = {"a": 3, "same": 2, "c": None}
    assert differences(first, second, absent="absent") == [
        Difference("a", 1, 3),
        Difference("b", 1, "absent"),
        Difference("c", "absent", None),
    ]
    assert differences(first, first, absent="absent") == []
