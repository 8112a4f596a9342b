"""Whether a start policy has a tokenizer and a chat template."""

import json
from pathlib import Path
from typing import Any

TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json")

TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "tokenizer.model")
"""One of them is enough: transformers makes a tokenizer of each."""


def tokenizer_problem(folder: Path) -> str:
    """What the HF folder with these files lacks for a chat; empty: nothing."""
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        return "holds no tokenizer (tokenizer.json); save the model's tokenizer into it"
    settings = _settings(folder)
    if settings is None:
        return "its tokenizer_config.json is not a JSON object; fetch the folder again"
    if not settings.get("chat_template") and not any(
        (folder / name).is_file() for name in TEMPLATE_FILES
    ):
        return "has no chat template (chat_template.jinja); take that of an instruction-tuned model"
    return ""


def _settings(folder: Path) -> dict[str, Any] | None:
    """The folder's tokenizer_config.json; empty where there is none, None where it is damaged."""
    file = folder / "tokenizer_config.json"
    if not file.is_file():
        return {}
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return settings if isinstance(settings, dict) else None
