"""Hugging Face folders: read tensor by tensor, written piece by piece, whole or not at all."""

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from megatron_trace.files.atomic import whole_folder

INDEX = "model.safetensors.index.json"
SHARD_BYTES = 5 * 1000**3
"""Default of `max_shard_bytes`, as in `transformers`."""
TRAVELS = (
    "*.json",
    "*.txt",
    "*.jinja",
    "*.model",
    "LICENSE*",
    "NOTICE*",
    "additional_chat_templates/*.jinja",
)
"""What travels with the weights: configuration, tokenizer, chat templates, generation config, licence."""

# Pages of a mapped file count as this process's memory until the file is let go.
MAPPED_BYTES = 8 << 20

DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
"""What weights may be stored as, in safetensors' names."""
_STORED = {dtype: name for name, dtype in DTYPES.items()}

TensorMeta = tuple[str, torch.dtype, tuple[int, ...]]
"""Name, dtype and shape of a tensor."""


class HFReader:
    """The model's tensors in an HF folder, read when asked for."""

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
        """Names of all tensors, buffers that the model computes itself left out."""
        return {name for name in self._shards if not name.endswith("rotary_emb.inv_freq")}

    def meta(self, name: str) -> TensorMeta:
        """Name, dtype and shape of a tensor, which is not read.

        Raises:
            ValueError: it is stored as something else than a 16- or 32-bit float.
        """
        stored = self._slice(name)
        if stored.get_dtype() not in DTYPES:
            raise ValueError(
                f"{self.folder}: {name} is stored as {stored.get_dtype()}; supported is {', '.join(DTYPES)}"
            )
        return name, DTYPES[stored.get_dtype()], tuple(stored.get_shape())

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """Rows `start` to `stop` of a tensor (by default all), on the CPU. May be a view of the mapped file."""
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
        ValueError: it is none; the message names the file.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file} is not a JSON object")
    return content


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
    *,
    config_dtype: torch.dtype | None = None,
    max_shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write an HF folder that `AutoModelForCausalLM` loads; `path` is replaced only when all is on disk.

    Args:
        path: the folder to make or replace.
        source: the folder whose configuration and tokenizer travel along.
        tensors: the model's tensors in the order of `metadata`; a tensor may come in several pieces, its rows in
            order. One piece is held at a time.
        metadata: names, dtypes and shapes of the same tensors; pieces of another dtype are cast.
        extra: further safetensors files by name. (Filled at the latest by the last of `tensors`.)
        config_dtype: what config.json shall state; by default it is copied as it is.
        max_shard_bytes: a weight file is not larger, unless for a single tensor.

    Raises:
        ValueError: a piece is not the one that is due.
    """
    with whole_folder(path) as partial:
        copy_hf_assets(source, partial, config_dtype)
        _write_shards(partial, tensors, metadata, max_shard_bytes)
        for name, content in extra.items():
            save_file(
                {key: tensor.detach().cpu().contiguous() for key, tensor in content.items()},
                partial / name,
            )


def copy_hf_assets(source: Path, target: Path, dtype: torch.dtype | None = None) -> None:
    """Copy what travels with the weights to the folder `target`, which is made if need be. Nothing is changed but the
    dtype that config.json states, where one is given."""
    for pattern in TRAVELS:
        for file in source.glob(pattern):
            if not file.name.endswith(".index.json"):
                destination = target / file.relative_to(source)
                destination.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, destination)
    config = read_config(source)
    name = str(dtype).removeprefix("torch.")
    if dtype is not None and config.get("dtype", config.get("torch_dtype")) != name:
        config.pop("torch_dtype", None)
        config["dtype"] = name
        (target / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _write_shards(
    folder: Path,
    tensors: Iterable[tuple[str, Tensor]],
    metadata: Sequence[TensorMeta],
    max_shard_bytes: int,
) -> None:
    shards = _plan_shards(metadata, max_shard_bytes)
    stream = iter(tensors)
    weight_map: dict[str, str] = {}
    for number, metas in enumerate(shards, start=1):
        name = (
            f"model-{number:05d}-of-{len(shards):05d}.safetensors"
            if len(shards) > 1
            else "model.safetensors"
        )
        _write_shard(folder / name, stream, metas)
        weight_map |= {meta[0]: name for meta in metas}
    if len(shards) > 1:
        index = {"metadata": {"total_size": sum(map(_size, metadata))}, "weight_map": weight_map}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    # The generator may have something left to do after its last tensor.
    for key, _ in stream:
        raise ValueError(f"{key} is not among the announced tensors")


def _plan_shards(metadata: Sequence[TensorMeta], max_shard_bytes: int) -> list[list[TensorMeta]]:
    shards: list[list[TensorMeta]] = [[]]
    room = max_shard_bytes
    for meta in metadata:
        if _size(meta) > room and shards[-1]:
            shards.append([])
            room = max_shard_bytes
        shards[-1].append(meta)
        room -= _size(meta)
    return shards


def _write_shard(
    path: Path, stream: Iterator[tuple[str, Tensor]], metas: Sequence[TensorMeta]
) -> None:
    """One safetensors file, written as the tensors come: safetensors' own writer needs all of them in memory.

    The format: 8 bytes that give the header's length, the header (JSON: dtype, shape and byte range of each tensor),
    the bytes. Source: https://github.com/huggingface/safetensors#format
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, dtype, shape in sorted(
        metas, key=lambda meta: -meta[1].itemsize
    ):  # so that all are aligned
        begin, end = end, end + _size((name, dtype, shape))
        header[name] = {"dtype": _STORED[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for meta in metas:
            file.seek(8 + len(text) + header[meta[0]]["data_offsets"][0])
            missing = _size(meta)
            while missing > 0:
                name, piece = next(stream, ("nothing", torch.empty(0)))
                data = piece.detach().cpu().to(meta[1]).contiguous()
                missing -= data.nbytes
                if name != meta[0] or missing < 0 or not data.nbytes:
                    raise ValueError(
                        f"{name} {tuple(piece.shape)} came where {meta[0]} {meta[2]} was due"
                    )
                file.write(data.view(-1).view(torch.uint8).numpy())


def _size(meta: TensorMeta) -> int:
    """Bytes of a tensor."""
    return meta[1].itemsize * torch.Size(meta[2]).numel()
