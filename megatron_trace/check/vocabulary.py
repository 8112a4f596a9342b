"""Whether the model has a row for every token of its tokenizer."""

from pathlib import Path

from tokenizers import Tokenizer

from megatron_trace.check.model import read_model_config
from megatron_trace.config import Config, SettingError
from megatron_trace.models.folders import hf_assets_dir


def check_vocabulary(config: Config) -> None:
    """Refuse a tokenizer with ids beyond the model's vocabulary: they would have no embedding.

    Raises:
        SettingError: there are such ids, or tokenizer.json cannot be read.
    """
    path = config.model.path
    file = hf_assets_dir(Path(path)) / "tokenizer.json"
    # Some tokenizers are of other files, which have no added tokens of their own.
    if not file.exists():
        return
    try:
        ids = Tokenizer.from_file(str(file)).get_vocab(with_added_tokens=True)
    # The library raises nothing narrower.
    except Exception as error:
        raise SettingError("model.path", path, f"its tokenizer.json is damaged: {error}") from None
    rows = read_model_config(path)["vocab_size"]
    beyond = sorted((number, token) for token, number in ids.items() if number >= rows)
    if beyond:
        number, token = beyond[0]
        remedy = (
            f"its tokenizer has {len(beyond)} tokens beyond config.json's vocab_size={rows}, "
            f"such as {token!r} with id {number}; call resize_token_embeddings and save the model"
        )
        raise SettingError("model.path", path, remedy)
