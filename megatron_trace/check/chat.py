"""Whether text becomes token ids: the start policy's tokenizer, and its chat template with what it is
given.
"""

import re
from pathlib import Path
from typing import Any

from megatron_trace.config import Config, SettingError
from megatron_trace.models.chat import TextCodec
from megatron_trace.models.folders import hf_assets_dir
from megatron_trace.rollout.episode import described


def load_codec(config: Config) -> TextCodec:
    """The start policy's tokenizer and chat template, as a worker uses them.

    Raises:
        SettingError: they cannot be used, or the template does not read something in
            `environment.chat_template`.
    """
    options = config.environment.chat_template
    try:
        tokenizer = _tokenizer(config)
        codec, template = TextCodec(tokenizer, options), tokenizer.get_chat_template()
    except Exception as error:
        remedy = f"its tokenizer or chat template cannot be used: {described(error)}"
        raise SettingError("model.path", config.model.path, remedy) from None
    for name, value in options.items():
        # The template would ignore it.
        if not re.search(rf"\b{re.escape(name)}\b", template):
            remedy = "the model's chat template reads nothing of this name; correct or remove it"
            raise SettingError(f"environment.chat_template.{name}", value, remedy)
    return codec


def _tokenizer(config: Config) -> Any:
    # It takes seconds, so only where tasks are checked.
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(hf_assets_dir(Path(config.model.path)))
