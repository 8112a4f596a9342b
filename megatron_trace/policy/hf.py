"""Hugging Face folders: read tensor by tensor, written whole or not at all."""

import json
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

INDEX = "model.safetensors.index.json"
SHARD_BYTES = 4 << 30
TRAVELS = ("*.json", "*.txt", "*.jinja", "*.model", "LICENSE*", "NOTICE*")
"""What an export copies from the start policy's folder: configuration, tokenizer, chat template, licence."""

TensorMeta = tuple[str, torch.dtype, tuple[int, ...]]
"""Name, dtype and shape of a tensor."""


class HFReader:
    """The model's tensors in an HF folder, read when asked for."""

    def __init__(self, folder: Path) -> None:
        """Open `folder`.

        Raises:
            FileNotFoundError: it holds no model.safetensors and no index of shards.
        """
        self.folder = folder
        if (folder / INDEX).exists():
            shards = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
        elif (folder / "model.safetensors").exists():
            with safe_open(folder / "model.safetensors", "pt") as file:
                shards = dict.fromkeys(file.keys(), "model.safetensors")
        else:
            raise FileNotFoundError(f"{folder} holds neither model.safetensors nor {INDEX}")
        self._shards: dict[str, str] = shards
        self._files: dict[str, Any] = {}

    def names(self) -> set[str]:
        """Names of all tensors, buffers that the model computes itself left out."""
        return {name for name in self._shards if not name.endswith("rotary_emb.inv_freq")}

    def read(self, name: str) -> Tensor:
        """One whole tensor, on the CPU."""
        shard = self._shards[name]
        if shard not in self._files:
            self._files[shard] = safe_open(self.folder / shard, "pt")
        return self._files[shard].get_tensor(name)


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's config.json.

    Raises:
        FileNotFoundError: there is none.
    """
    if not (folder / "config.json").exists():
        raise FileNotFoundError(f"model.path={folder} holds no config.json; it must be a Hugging Face folder")
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))


def drain(tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Use up a stream of tensors without keeping any: what ranks do that only take part in the gathering."""
    for _ in tensors:
        pass


def write_folder(
    path: Path,
    source: Path,
    tensors: Iterable[tuple[str, Tensor]],
    metadata: Sequence[TensorMeta],
    extra: dict[str, dict[str, Tensor]],
) -> None:
    """Write an HF folder that `AutoModelForCausalLM` loads; `path` is replaced only when all is on disk.

    Args:
        path: the folder to make or replace.
        source: the start policy's folder, whose configuration and tokenizer travel along.
        tensors: the model's tensors, in the order of `metadata`; at most one shard is held at a time.
        metadata: names, dtypes and shapes of the same tensors.
        extra: further safetensors files by name.
    """
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _copy_companions(source, partial, metadata[0][1])
    _write_shards(partial, tensors, metadata)
    for name, content in extra.items():
        save_file(_plain(content), partial / name)
    retired = path.with_name(path.name + ".retired")
    shutil.rmtree(retired, ignore_errors=True)
    if path.exists():
        os.replace(path, retired)
    os.replace(partial, path)
    shutil.rmtree(retired, ignore_errors=True)


def _copy_companions(source: Path, target: Path, dtype: torch.dtype) -> None:
    for pattern in TRAVELS:
        for file in source.glob(pattern):
            if file.name != INDEX:
                shutil.copy2(file, target / file.name)
    config = read_config(source)
    config.pop("torch_dtype", None)
    config["dtype"] = str(dtype).removeprefix("torch.")
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _write_shards(
    folder: Path, tensors: Iterable[tuple[str, Tensor]], metadata: Sequence[TensorMeta]
) -> None:
    shards: list[list[str]] = [[]]
    room = SHARD_BYTES
    for name, dtype, shape in metadata:
        size = dtype.itemsize * torch.Size(shape).numel()
        if size > room and shards[-1]:
            shards.append([])
            room = SHARD_BYTES
        shards[-1].append(name)
        room -= size
    stream = iter(tensors)
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file = (
            "model.safetensors"
            if len(shards) == 1
            else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        )
        content = dict(next(stream) for _ in names)
        save_file(_plain(content), folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(content, file)
    if len(shards) > 1:
        total = sum(dtype.itemsize * torch.Size(shape).numel() for _, dtype, shape in metadata)
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    drain(stream)


def _plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
