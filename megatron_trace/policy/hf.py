"""Reads a Hugging Face folder: its config.json, and its weights tensor by tensor."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

INDEX = "model.safetensors.index.json"
"""Which file holds which tensor, where there are several."""

MAPPED_BYTES = 8 << 20
"""Bytes read from mapped files after which all files are closed."""

DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
"""Supported dtypes of weights, by safetensors' names."""

TensorMeta = tuple[str, torch.dtype, tuple[int, ...]]
"""Name, dtype and shape of a tensor."""


class HFReader:
    """The model's tensors in an HF folder, read on demand."""

    def __init__(self, folder: Path) -> None:
        """Open `folder`.

        Raises:
            FileNotFoundError: it holds no model.safetensors and no index of shards.
            ValueError: the index or a file is damaged.
        """
        self.folder = folder
        self._files: dict[str, Any] = {}
        self._mapped = 0
        if (folder / INDEX).exists():
            shards = read_json(folder / INDEX)["weight_map"]
        elif (folder / "model.safetensors").exists():
            shards = dict.fromkeys(self._open("model.safetensors").keys(), "model.safetensors")
        else:
            raise FileNotFoundError(f"{folder} holds neither model.safetensors nor {INDEX}")
        self._shards: dict[str, str] = shards

    def names(self) -> set[str]:
        """Names of all tensors, without buffers that the model computes itself."""
        return {name for name in self._shards if not name.endswith("rotary_emb.inv_freq")}

    def meta(self, name: str) -> TensorMeta:
        """Name, dtype and shape of a tensor, without reading the tensor.

        Raises:
            ValueError: it is stored as something else than a 16- or 32-bit float.
        """
        view = self._slice(name)
        dtype = view.get_dtype()
        if dtype not in DTYPES:
            supported = ", ".join(DTYPES)
            raise ValueError(
                f"{self.folder}: {name} is stored as {dtype}; supported is {supported}"
            )
        return name, DTYPES[dtype], tuple(view.get_shape())

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """Rows `start` to `stop` of a tensor (default: all) on the CPU, maybe a view of the file."""
        # Pages of a mapped file count as this process's memory until the file is closed: otherwise
        # reading a large model tensor by tensor would end up holding all of it.
        if self._mapped > MAPPED_BYTES:
            self._files.clear()
            self._mapped = 0
        tensor = self._slice(name)[start:stop]
        self._mapped += tensor.nbytes
        return tensor

    def _slice(self, name: str) -> Any:
        shard = self._shards[name]
        try:
            return self._open(shard).get_slice(name)
        except SafetensorError as error:
            raise ValueError(f"{self.folder / shard} does not hold {name}: {error}") from None

    def _open(self, shard: str) -> Any:
        if shard not in self._files:
            try:
                self._files[shard] = safe_open(self.folder / shard, "pt")
            except SafetensorError as error:
                raise ValueError(f"{self.folder / shard} is damaged: {error}") from None
        return self._files[shard]


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's config.json.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is not JSON.
    """
    if not (folder / "config.json").exists():
        raise FileNotFoundError(f"{folder} holds no config.json; it must be a Hugging Face folder")
    return read_json(folder / "config.json")


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ValueError: the file is not a JSON object; the message names it.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file} is not a JSON object")
    return content


def nbytes(meta: TensorMeta) -> int:
    """Bytes of a tensor."""
    return meta[1].itemsize * torch.Size(meta[2]).numel()
