"""A Megatron checkpoint -> a Hugging Face folder, tensor by tensor, never whole in memory."""

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from megatron_trace.models.folders import HF
from megatron_trace.models.predictor import FILE as PREDICTOR_FILE
from megatron_trace.models.predictor import NAMES as PREDICTOR
from megatron_trace.models.weight_rules import VOCABULARY
from megatron_trace.policy.convert.locations import hf_shape
from megatron_trace.policy.convert.model import (
    Converted,
    Located,
    Model,
    OnProgress,
    by_layer,
    check_names,
)
from megatron_trace.policy.convert.prefetch import prefetched
from megatron_trace.policy.convert.torch_dist_reader import TensorReader
from megatron_trace.policy.hf import nbytes
from megatron_trace.policy.hf_writer import SHARD_BYTES, write_folder
from megatron_trace.policy.manifest import verify


def to_hf(
    checkpoint: Path,
    out: Path,
    progress: OnProgress,
    *,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = SHARD_BYTES,
) -> Converted:
    """Write the HF folder `out` of a checkpoint that a run or `to_megatron` wrote.

    Args:
        dtype: cast the model to it; None: keep the dtype of the checkpoint.
        max_shard_bytes: largest size of a file of weights.

    Raises:
        megatron_trace.policy.manifest.DamagedCheckpoint: `checkpoint` is none, is incomplete or was
            changed.
        ValueError: it holds another model than its hf/config.json describes; the message names the
            tensor.
        OSError: something cannot be read or written.
    """
    with ThreadPoolExecutor(1) as pool:
        # The files are verified while they are converted. `out` appears only after both.
        verified = pool.submit(verify, checkpoint)
        try:
            return _convert(checkpoint, out, progress, verified, dtype, max_shard_bytes)
        except Exception:
            # A damaged file is the better explanation of whatever failed.
            verified.result()
            raise


def _convert(
    checkpoint: Path,
    out: Path,
    progress: OnProgress,
    verified: Future[None],
    dtype: torch.dtype | None,
    max_shard_bytes: int,
) -> Converted:
    model = Model.of(checkpoint / HF)
    reader = TensorReader(checkpoint)
    # The checkpoint's own names say whether its layers are stacked.
    stacked = not any(re.match(r"decoder\.layers\.\d", key) for key in reader.names())
    located = model.located(stacked=stacked)
    _check_checkpoint(checkpoint, reader, located, model)
    metadata = []
    for row, location in located:
        for name in row.hf:
            shape = hf_shape(name, model.config)
            metadata.append((name, dtype or reader.dtype(location.key), shape))

    def verified_tensors() -> Iterator[tuple[str, Tensor]]:
        yield from prefetched(_tensors(reader, model, located, progress))
        verified.result()

    write_folder(
        out,
        model.folder,
        verified_tensors(),
        metadata,
        _predictor(reader),
        config_dtype=dtype,
        max_shard_bytes=max_shard_bytes,
    )
    return Converted(len(metadata), sum(map(nbytes, metadata)))


def _predictor(reader: TensorReader) -> dict[str, dict[str, Tensor]]:
    """The predictor's file and its tensors, where the checkpoint has a predictor."""
    if PREDICTOR[0] not in reader.names():
        return {}
    tensors = {name: reader.read(name, (), 0, reader.shape(name)[0]) for name in PREDICTOR}
    return {PREDICTOR_FILE: tensors}


def _check_checkpoint(
    checkpoint: Path, reader: TensorReader, located: Sequence[Located], model: Model
) -> None:
    """Refuse a checkpoint of another model.

    Raises:
        ValueError: a tensor is missing, has no place in the model, or has another shape.
    """
    wanted = {location.key for _, location in located}
    if any(key.startswith("predictor.") for key in reader.names()):
        wanted |= set(PREDICTOR)
    present = {key for key in reader.names() if not key.startswith("optimizer.")}
    check_names(str(checkpoint), wanted, present)
    for row, location in located:
        shape, expected = reader.shape(location.key), location.axes + location.shape
        if row.rule is VOCABULARY:
            # Another padding of the vocabulary is as good, as long as all real tokens are there.
            axis = len(location.axes)
            same = (
                shape[axis : axis + 1] >= (model.sizes.vocabulary,)
                and shape[:axis] == expected[:axis]
                and shape[axis + 1 :] == expected[axis + 1 :]
            )
        else:
            same = shape == expected
        if not same:
            raise ValueError(
                f"{checkpoint}: {location.key} has shape {shape}, but hf/config.json means {expected}"
            )


def _tensors(
    reader: TensorReader, model: Model, located: Sequence[Located], progress: OnProgress
) -> Iterator[tuple[str, Tensor]]:
    """The HF tensors in the order of the rows, vocabulary tables in blocks of rows."""
    parts = by_layer(located)
    for number, part in enumerate(parts, start=1):
        for row, location in part:
            key, index = location.key, location.index
            if row.rule is VOCABULARY:
                for start, stop in reader.blocks(key, index, model.sizes.vocabulary):
                    yield row.hf[0], reader.read(key, index, start, stop)
            else:
                full = reader.read(key, index, 0, location.shape[0])
                yield from zip(row.hf, row.rule.split(full, model.sizes), strict=True)
        progress(number, len(parts))
