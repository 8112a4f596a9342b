"""Whether a run's start policy is there and whole, and not only its description."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from megatron_trace.check.model import read_model_config
from megatron_trace.check.tokenizer import tokenizer_problem
from megatron_trace.config import Config, SettingError
from megatron_trace.models.folders import hf_assets_dir, is_checkpoint

INDEX = "model.safetensors.index.json"
"""Which file holds which tensor, where there are several."""

PREDICTOR = "predictor.safetensors"

Shapes = dict[str, tuple[int, ...]]
"""Tensor -> shape."""


def check_weights(config: Config) -> None:
    """Refuse a start policy without weights, tokenizer or chat template, or with damaged ones.

    Only the headers of the weights are read. A checkpoint's weights are verified when it is loaded.

    Raises:
        SettingError: something is missing or damaged; it says how to get it.
    """
    path = config.model.path
    folder, model = Path(path), read_model_config(path)
    try:
        if not is_checkpoint(folder):
            _check_tensors(folder, model)
            _check_predictor(config, folder, model)
    except ValueError as error:
        if isinstance(error, SettingError):
            raise
        raise SettingError("model.path", path, str(error)) from None
    if problem := tokenizer_problem(hf_assets_dir(folder)):
        raise SettingError("model.path", path, problem)


def _check_tensors(folder: Path, model: dict[str, Any]) -> None:
    shapes: Shapes = {}
    for file, names in _files(folder).items():
        stored = _shapes(folder / file)
        if lost := sorted(names - stored.keys()):
            raise ValueError(f"{file} does not hold {lost[0]}, as {INDEX} says; fetch it again")
        shapes |= stored
    # This imports torch, which takes seconds.
    from megatron_trace.models.weight_map import HF_EMBEDDING, expand, family_of

    tied = bool(model.get("tie_word_embeddings", False))
    rows = expand(family_of(model["model_type"]), model, tied=tied)
    for row in rows:
        for name in row.hf:
            if name not in shapes:
                raise ValueError(f"its safetensors do not hold {name}; fetch the folder again")
    embedding = (model["vocab_size"], model["hidden_size"])
    if shapes[HF_EMBEDDING] != embedding:
        raise ValueError(
            f"{HF_EMBEDDING} has the shape {shapes[HF_EMBEDDING]}, and config.json says {embedding}"
        )


def _files(folder: Path) -> dict[str, set[str]]:
    """File -> the tensors that the index says it holds; of a single file nothing is said."""
    if not (folder / INDEX).exists():
        if (folder / "model.safetensors").exists():
            return {"model.safetensors": set()}
        known = folder.name if folder.name.startswith("Qwen3-") else None
        source = f"Qwen/{known}" if known else "<organisation>/<model>"
        raise ValueError(
            "holds no weights (model.safetensors); fetch them: "
            f"hf download {source} --local-dir {folder}"
        )
    try:
        shards = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
        files: dict[str, set[str]] = {}
        for name, file in shards.items():
            files.setdefault(file, set()).add(name)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ValueError(
            f"its {INDEX} has no weight_map of tensors and files; fetch it again"
        ) from None
    return files


def _shapes(file: Path) -> Shapes:
    """The tensors of a safetensors file, from its header.

    Raises:
        ValueError: it is missing, damaged or cut.
    """
    try:
        with safe_open(file, "np") as opened:
            names = opened.keys()
            return {name: tuple(opened.get_slice(name).get_shape()) for name in names}
    except OSError as error:
        reason = error.strerror or "is missing"
        raise ValueError(f"{file.name} cannot be read ({reason}); fetch it again") from None
    except SafetensorError as error:
        raise ValueError(f"{file.name} is damaged ({error}); fetch it again") from None


def _check_predictor(config: Config, folder: Path, model: dict[str, Any]) -> None:
    if not (folder / PREDICTOR).exists():
        return
    width, shapes = config.learning.predictor.hidden, _shapes(folder / PREDICTOR)
    found, wanted = shapes.get("predictor.fc1.weight"), (width, model["hidden_size"])
    if found != wanted:
        remedy = (
            f"{folder / PREDICTOR} has a first layer of {found or 'no tensor'}, and the run needs "
            f"{wanted}; set it to the stored width, or remove the file"
        )
        raise SettingError("learning.predictor.hidden", width, remedy)
