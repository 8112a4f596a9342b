"""A text setting is the text that was written, whatever YAML would take it for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from megatron_trace.check.load import load_config
from megatron_trace.config import SettingError

REINTERPRETED = [
    "0123", "007", "1e3", "1e10934", "1.0", ".5", ".inf", ".nan", "0x1f", "0b11", "1_000", "+3",
    "1:30", "12:30:45", "2026-01-01", "2026-01-01T00:00:00Z",
    "no", "on", "off", "y", "true", "False", "null", "~", "Null",
]  # fmt: skip
"""Plain YAML scalars that YAML 1.1 takes for a number, a date, a truth value or null."""


@pytest.mark.parametrize("text", REINTERPRETED)
def test_a_text_of_the_file_stays_what_was_written(tmp_path, text: str) -> None:
    # A key of YAML cannot be null.
    key = "x" if text in ("null", "~", "Null") else text
    file = tmp_path / "run.yaml"
    file.write_text(
        f"run: {{name: {text}, loggers: [{text}]}}\n"
        f"data: {{heldout: {{{key}: {text}}}}}\n"
        f"environment: {{options: {{search_qa: {{instruction: {text}}}}}}}\n"
    )
    config = load_config(str(file))
    assert (config.run.name, config.run.loggers) == (text, [text])
    assert config.data.heldout == {key: text}
    assert config.environment.options == {"search_qa": {"instruction": text}}


@pytest.mark.parametrize("text", [*REINTERPRETED, "[x]", "{y}", "*", "a: b", "a # b", " a ", "'"])
def test_a_text_of_the_command_line_stays_what_was_typed(text: str) -> None:
    config = load_config(None, [f"run.name={text}", f"data.heldout.x={text}"])
    assert (config.run.name, config.data.heldout) == (text, {"x": text})


@given(st.text(st.characters(exclude_characters="${}\\", exclude_categories=["Cs"])))
def test_any_text_of_the_command_line_stays_what_was_typed(text: str) -> None:
    if (len(text) > 1 and text[0] == text[-1] and text[0] in "'\"") or text == "???":
        return
    options = ["model.path", "environment.options.search_qa.instruction"]
    config = load_config(None, [f"{name}={text}" for name in options])
    assert config.model.path == text
    assert config.environment.options == {"search_qa": {"instruction": text}}


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("run.name='0123'", "0123"),
        ('run.name="a b"', "a b"),
        ("run.name=''", ""),
        ("run.name=", ""),
    ],
)
def test_quotes_around_a_whole_text_are_taken_off(override: str, value: str) -> None:
    assert load_config(None, [override]).run.name == value


def test_only_a_text_that_may_be_null_can_be_null(tmp_path) -> None:
    for null in ("null", "~", ""):
        assert load_config(None, [f"rollout.ray_address={null}"]).rollout.ray_address is None
        assert load_config(None, [f"model.path={null}"]).model.path == null
    file = tmp_path / "run.yaml"
    file.write_text("rollout: {ray_address: null}\nmodel: {path: null}\n")
    config = load_config(str(file))
    assert (config.rollout.ray_address, config.model.path) == (None, "null")
    file.write_text("rollout: {ray_address: 'null'}\n")
    assert load_config(str(file)).rollout.ray_address == "null"


def test_numbers_are_read_from_their_digits_and_nothing_else() -> None:
    config = load_config(
        None,
        [
            "run.steps=010",
            "learning.optimizer.learning_rate=1e-4",
            "allocation.options.trace.probe='4'",
            "allocation.options.arpo.log_vocabulary=7",
        ],
    )
    assert (config.run.steps, config.learning.optimizer.learning_rate) == (10, 1e-4)
    assert config.allocation.options == {"trace": {"probe": 4}, "arpo": {"log_vocabulary": 7.0}}


@pytest.mark.parametrize("text", ["2", "-1", "'2'", "0.5", "[1]", "maybe"])
def test_a_switch_is_true_or_false_and_no_number(tmp_path, text: str) -> None:
    name, file = "learning.batching.merge", tmp_path / "config.yaml"
    file.write_text(f"learning: {{batching: {{merge: {text}}}}}\n")
    for arguments in ((str(file),), (None, [f"{name}={text}"])):
        with pytest.raises(SettingError, match=rf"^{name} = .*: must be of type bool$"):
            load_config(*arguments)


def test_what_a_run_writes_down_is_read_back(tmp_path) -> None:
    file = tmp_path / "config.yaml"
    for text in REINTERPRETED:
        config = load_config(None, [f"run.name={text}", f"data.heldout={{a: '{text}'}}"])
        OmegaConf.save(OmegaConf.structured(config), file)
        assert load_config(str(file)) == config
