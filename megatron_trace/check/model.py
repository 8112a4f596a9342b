"""What a model's config.json says, and whether it is a model that we train."""

import json
from pathlib import Path
from typing import Any

from megatron_trace.config import Config, SettingError
from megatron_trace.models.architecture import ARCHITECTURES, check_architecture, check_keys
from megatron_trace.models.folders import hf_assets_dir


def read_model_config(path: str) -> dict[str, Any]:
    """The `config.json` of `model.path`, a HF folder or a checkpoint.

    Raises:
        SettingError: there is none, or it is no JSON object.
    """
    try:
        text = (hf_assets_dir(Path(path)) / "config.json").read_text(encoding="utf-8")
    except OSError:
        remedy = "must be a HF model folder or a checkpoint; it has no config.json"
        raise SettingError("model.path", path, remedy) from None
    except ValueError:
        text = ""
    try:
        model = json.loads(text)
    except (ValueError, RecursionError):
        model = None
    if not isinstance(model, dict):
        remedy = "its config.json is not a JSON object; fetch the folder again"
        raise SettingError("model.path", path, remedy)
    return model


def check_model(config: Config) -> None:
    """Refuse a model of another kind, or with fewer positions than a rollout may have tokens.

    Raises:
        SettingError: it is one.
    """
    model = read_model_config(config.model.path)
    architectures = model.get("architectures")
    named = architectures[0] if isinstance(architectures, list) and architectures else None
    if named not in list(ARCHITECTURES):
        remedy = f"holds a {named}; supported is {', '.join(ARCHITECTURES)}"
        raise SettingError("model.path", config.model.path, remedy)
    try:
        check_keys(model)
        check_architecture(model)
    except ValueError as error:
        raise SettingError("model.path", config.model.path, str(error)) from None
    longest = model["max_position_embeddings"]
    if config.rollout.max_history_tokens > longest:
        remedy = f"is more than the model's {longest} positions; lower it"
        raise SettingError("rollout.max_history_tokens", config.rollout.max_history_tokens, remedy)
