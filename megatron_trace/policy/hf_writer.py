"""Writes a Hugging Face folder piece by piece. The folder appears whole or not at all."""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors.torch import save
from torch import Tensor

from megatron_trace.files.atomic import whole_folder
from megatron_trace.policy.hf import DTYPES, INDEX, TensorMeta, nbytes, read_config

SHARD_BYTES = 5 * 1000**3
"""Default of `max_shard_bytes`, as in `transformers`."""

ASSETS = (
    "*.json",
    "*.txt",
    "*.jinja",
    "*.model",
    "LICENSE*",
    "NOTICE*",
    "additional_chat_templates/*.jinja",
)
"""Files copied with the weights: configuration, tokenizer, chat templates, licence."""

_SAFETENSORS_NAME = {dtype: name for name, dtype in DTYPES.items()}

Stream = Iterator[tuple[str, Tensor]]
"""Pieces of tensors, each with its tensor's name."""


def write_folder(
    path: Path,
    source: Path,
    tensors: Iterable[tuple[str, Tensor]],
    metadata: Sequence[TensorMeta],
    extra: Mapping[str, Mapping[str, Tensor]],
    *,
    config_dtype: torch.dtype | None = None,
    max_shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write an HF folder that `AutoModelForCausalLM` loads; `path` is replaced at the end.

    Args:
        path: the folder to make or replace.
        source: the folder whose configuration and tokenizer are copied.
        tensors: the model's tensors in the order of `metadata`. A tensor may come in several
            pieces, with its rows in order. One piece is held in memory at a time.
        metadata: names, dtypes and shapes of the same tensors. Pieces of another dtype are cast.
        extra: further safetensors files by name. Their contents are read after the last of
            `tensors`, so the stream of `tensors` may fill them.
        config_dtype: dtype that config.json shall state; None: config.json is copied unchanged.
        max_shard_bytes: largest size of a weight file. A file of a single tensor may be larger.

    Raises:
        ValueError: a piece is not the next one that `metadata` announces.
        OSError: something cannot be read or written.
    """
    with whole_folder(path) as partial:
        copy_hf_assets(source, partial, config_dtype)
        _write_shards(partial, iter(tensors), metadata, max_shard_bytes)
        for name, content in extra.items():
            on_cpu = {key: tensor.detach().cpu().contiguous() for key, tensor in content.items()}
            # These are small. safetensors' own `save_file` raises no OSError on a full disk.
            (partial / name).write_bytes(save(on_cpu))


def copy_hf_assets(source: Path, target: Path, dtype: torch.dtype | None = None) -> None:
    """Copy configuration, tokenizer and licence (`ASSETS`) to the folder `target`.

    Args:
        dtype: dtype that config.json shall state; None: config.json is copied unchanged.
    """
    for pattern in ASSETS:
        for file in source.glob(pattern):
            # The index describes the source's shards, and the target's shards are cut again.
            if not file.name.endswith(".index.json"):
                destination = target / file.relative_to(source)
                destination.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, destination)
    if dtype is not None:
        _state_dtype(target / "config.json", read_config(source), dtype)


def _state_dtype(file: Path, config: dict[str, Any], dtype: torch.dtype) -> None:
    name = str(dtype).removeprefix("torch.")
    # transformers 5 writes `dtype`, earlier versions `torch_dtype`.
    if config.get("dtype", config.get("torch_dtype")) == name:
        return
    config.pop("torch_dtype", None)
    config["dtype"] = name
    file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _write_shards(
    folder: Path, stream: Stream, metadata: Sequence[TensorMeta], max_shard_bytes: int
) -> None:
    shards = _plan_shards(metadata, max_shard_bytes)
    weight_map: dict[str, str] = {}
    for number, metas in enumerate(shards, start=1):
        name = "model.safetensors"
        if len(shards) > 1:
            name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write_shard(folder / name, stream, metas)
        weight_map |= {meta[0]: name for meta in metas}
    if len(shards) > 1:
        index = {"metadata": {"total_size": sum(map(nbytes, metadata))}, "weight_map": weight_map}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    # A generator runs the code after its last `yield` only when it is asked for one more item. The
    # checks and the predictor's tensors of the callers come there.
    for key, _ in stream:
        raise ValueError(f"{key} is not among the announced tensors")


def _plan_shards(metadata: Sequence[TensorMeta], max_shard_bytes: int) -> list[list[TensorMeta]]:
    """The tensors of each file, in the order of `metadata`.

    (huggingface_hub's planner puts a tensor that is too large for a file ahead of those before it.
    A stream cannot be written in that order.)
    """
    shards: list[list[TensorMeta]] = [[]]
    room = max_shard_bytes
    for meta in metadata:
        if nbytes(meta) > room and shards[-1]:
            shards.append([])
            room = max_shard_bytes
        shards[-1].append(meta)
        room -= nbytes(meta)
    return shards


def _write_shard(path: Path, stream: Stream, metas: Sequence[TensorMeta]) -> None:
    """Write one safetensors file as the tensors arrive.

    safetensors' own writer needs all tensors of a file in memory. The format: 8 bytes that give the
    header's length, the header (JSON: dtype, shape and byte range of each tensor), the bytes.
    Source: https://github.com/huggingface/safetensors#format
    """
    offsets, header = _layout(metas)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for meta in metas:
            file.seek(8 + len(header) + offsets[meta[0]])
            _write_tensor(file, stream, meta)


def _layout(metas: Sequence[TensorMeta]) -> tuple[dict[str, int], bytes]:
    """Where each tensor's bytes begin within the data, and the file's header."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offsets: dict[str, int] = {}
    end = 0
    # Wide dtypes come first, so that every tensor starts at a multiple of its element size.
    for meta in sorted(metas, key=lambda meta: -meta[1].itemsize):
        name, dtype, shape = meta
        begin, end = end, end + nbytes(meta)
        offsets[name] = begin
        entries[name] = {
            "dtype": _SAFETENSORS_NAME[dtype],
            "shape": list(shape),
            "data_offsets": [begin, end],
        }
    header = json.dumps(entries, separators=(",", ":")).encode()
    return offsets, header + b" " * (-len(header) % 8)


def _write_tensor(file: BinaryIO, stream: Stream, meta: TensorMeta) -> None:
    """Write the stream's next pieces, which must be those of one tensor.

    Raises:
        ValueError: a piece is of another tensor, or the tensor has other bytes than announced.
    """
    missing = nbytes(meta)
    while missing > 0:
        name, piece = next(stream, ("nothing", torch.empty(0)))
        data = piece.detach().cpu().to(meta[1]).contiguous()
        missing -= data.nbytes
        if name != meta[0] or missing < 0 or not data.nbytes:
            raise ValueError(f"{name} {tuple(piece.shape)} came where {meta[0]} {meta[2]} was due")
        file.write(data.view(-1).view(torch.uint8).numpy())
