"""A tokenizer that knows more tokens than the model has rows is refused before anything starts."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models

from megatron_trace.check.vocabulary import check_vocabulary
from megatron_trace.config import Config, SettingError


def model_with(folder: Path, vocab_size: int) -> Config:
    """A model whose tokenizer has the ids 0 to 4; the tags are the last two."""
    tokenizer = Tokenizer(models.BPE(vocab={"a": 0, "b": 1, "c": 2}, merges=[]))
    tokenizer.add_tokens(["<answer>", "</answer>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"vocab_size": vocab_size}))
    config = Config()
    config.model.path = str(folder)
    return config


@pytest.mark.parametrize("vocab_size", [5, 6, 1024])
def test_a_row_for_every_token_is_enough(tmp_path: Path, vocab_size: int) -> None:
    check_vocabulary(model_with(tmp_path, vocab_size))


@pytest.mark.parametrize(("vocab_size", "first"), [(3, "'<answer>' with id 3"), (4, "id 4")])
def test_added_tokens_without_rows_are_one_line(
    tmp_path: Path, vocab_size: int, first: str
) -> None:
    with pytest.raises(SettingError, match=f"{5 - vocab_size} tokens beyond .*{first}") as error:
        check_vocabulary(model_with(tmp_path, vocab_size))
    assert "resize_token_embeddings" in str(error.value) and "\n" not in str(error.value)


def test_a_damaged_tokenizer_is_one_line(tmp_path: Path) -> None:
    config = model_with(tmp_path, 5)
    file = tmp_path / "tokenizer.json"
    file.write_text(file.read_text()[:-40])
    with pytest.raises(SettingError, match=r"tokenizer\.json is damaged") as error:
        check_vocabulary(config)
    assert "\n" not in str(error.value)


def test_a_model_without_a_tokenizer_json_is_another_check_s_business(tmp_path: Path) -> None:
    config = model_with(tmp_path, 5)
    (tmp_path / "tokenizer.json").unlink()
    check_vocabulary(config)
