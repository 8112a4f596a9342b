"""Held-out sets have names that can stand in the metrics."""

import pytest

from megatron_trace.check.load import load_config
from megatron_trace.check.names import check_source_names
from megatron_trace.config import Config, SettingError


def named(name: str) -> Config:
    config = Config()
    config.data.heldout = {name: "x.tar"}
    return config


@pytest.mark.parametrize("name", ["1 hop", "heldout_1", "a.b", "x-1", "7", "Länder", "means"])
def test_a_name_may_be_words(name) -> None:
    check_source_names(named(name))


@pytest.mark.parametrize("name", ["", " ", "a ", " a", "a/b", "..", ".a", "a\n", "a:b", "a\tb"])
def test_a_name_that_no_metric_can_have_is_refused(name) -> None:
    with pytest.raises(SettingError, match=r"must be letters, digits, `_`, `-`, `\.` and spaces"):
        check_source_names(named(name))


def test_the_name_of_the_mean_is_taken() -> None:
    with pytest.raises(SettingError, match=r"^data\.heldout\.mean = 'x\.tar': needs another name"):
        check_source_names(named("mean"))


@pytest.mark.parametrize("key", ["1", "on", "1.5"])
def test_a_name_that_yaml_takes_for_something_else_is_a_name(tmp_path, key) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(f"data:\n  heldout:\n    {key}: x.tar\n")
    config = load_config(str(file))
    assert config.data.heldout == {key: "x.tar"}
    check_source_names(config)


def test_a_source_of_training_tasks_needs_such_a_name_too() -> None:
    config = Config()
    config.data.train = {"mean": "x.tar", "a/b": {"files": "y.tar"}}
    with pytest.raises(SettingError, match=r"^data\.train\.a/b = 'y\.tar': the name of a source"):
        check_source_names(config)
