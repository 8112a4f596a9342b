"""Whether a run's start policy is there and whole, and not only its description."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
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

Shape = tuple[int, ...]

DTYPES = ("BF16", "F16", "F32")
"""Dtypes of weights that are read, by safetensors' names."""


@dataclass(frozen=True)
class Stored:
    """What the header of a safetensors file says of a tensor."""

    file: str
    shape: Shape
    dtype: str


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
            _check_predictor(folder, model)
    except ValueError as error:
        if isinstance(error, SettingError):
            raise
        raise SettingError("model.path", path, str(error)) from None
    if problem := tokenizer_problem(hf_assets_dir(folder)):
        raise SettingError("model.path", path, problem)


def _check_tensors(folder: Path, model: dict[str, Any]) -> None:
    stored: dict[str, Stored] = {}
    for file, names in _files(folder).items():
        in_file = _stored(folder / file)
        if lost := sorted(names - in_file.keys()):
            raise ValueError(f"{file} does not hold {lost[0]}, as {INDEX} says; fetch it again")
        # What the index does not name is not read.
        stored |= {name: in_file[name] for name in names or in_file}
    # This imports torch, which takes seconds.
    from megatron_trace.models.weight_map import HF_HEAD, expand, family_of
    from megatron_trace.policy.convert.locations import hf_shape

    tied = bool(model.get("tie_word_embeddings", False))
    rows = expand(family_of(model["model_type"]), model, tied=tied)
    shapes = {name: hf_shape(name, model) for row in rows for name in row.hf}
    # A tied head is the embedding again, and old folders hold a buffer that every model computes.
    unread = {name for name in stored if name.endswith("rotary_emb.inv_freq")}
    if tied:
        unread.add(HF_HEAD)
    read = {name: one for name, one in stored.items() if name not in unread}
    _check_stored(read, shapes, "by config.json")


def _check_stored(stored: Mapping[str, Stored], shapes: Mapping[str, Shape], source: str) -> None:
    """Refuse weights that lack one of the tensors in `shapes`, or hold others or of another kind.

    Args:
        shapes: tensor -> the shape that it must have.
        source: what says so, for the message.
    """
    if extra := sorted(stored.keys() - shapes.keys()):
        what = f"{extra[0]} has no place in the model {source}"
        raise ValueError(f"{stored[extra[0]].file}: {what}; fetch the model's own files")
    for name, shape in shapes.items():
        if name not in stored:
            raise ValueError(f"its safetensors do not hold {name}; fetch the folder again")
        found = stored[name]
        if found.shape != shape:
            what = f"{name} has the shape {found.shape}, and it must be {shape} {source}"
            raise ValueError(f"{found.file}: {what}; fetch the model's own files")
        if found.dtype not in DTYPES:
            supported = ", ".join(DTYPES)
            raise ValueError(
                f"{found.file}: {name} is stored as {found.dtype}; supported is {supported}"
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


def _stored(file: Path) -> dict[str, Stored]:
    """The tensors of a safetensors file, from its header.

    Raises:
        ValueError: it is missing, damaged or cut.
    """
    # Opening a pipe might never end.
    if file.exists() and not file.is_file():
        raise ValueError(f"{file.name} is no file; fetch it again")
    try:
        with safe_open(file, "np") as opened:
            views = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            return {
                name: Stored(file.name, tuple(view.get_shape()), view.get_dtype())
                for name, view in views.items()
            }
    except OSError as error:
        reason = error.strerror or "is missing"
        raise ValueError(f"{file.name} cannot be read ({reason}); fetch it again") from None
    except SafetensorError as error:
        raise ValueError(f"{file.name} is damaged ({error}); fetch it again") from None


def _check_predictor(folder: Path, model: dict[str, Any]) -> None:
    if not (folder / PREDICTOR).exists():
        return
    from megatron_trace.models.predictor import shapes

    stored = {
        name: (found.shape, found.dtype) for name, found in _stored(folder / PREDICTOR).items()
    }
    wanted = {name: (shape, "F32") for name, shape in shapes(model["hidden_size"]).items()}
    if stored != wanted:
        raise ValueError(
            f"{PREDICTOR} holds {stored} and the policy needs {wanted}; fit the predictor again "
            "with tools/fit_predictor.py, or remove the file"
        )
