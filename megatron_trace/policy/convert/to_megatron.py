"""A Hugging Face folder -> a Megatron checkpoint, tensor by tensor, never whole in memory.

    <checkpoint>/.metadata, *.distcp, common.pt, metadata.json   megatron.core.dist_checkpointing's
    files <checkpoint>/hf/                                             configuration, tokenizer,
    chat template <checkpoint>/manifest.json                                   size and checksum of
    all other files

The families' weight maps say which tensors belong together, `locations.py` where they lie.
Megatron-Core itself is not needed.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import pad

from megatron_trace.files.atomic import whole_folder
from megatron_trace.models.folders import HF
from megatron_trace.models.predictor import FILE as PREDICTOR_FILE
from megatron_trace.models.predictor import NAMES as PREDICTOR
from megatron_trace.models.weight_map import HF_EMBEDDING, HF_HEAD
from megatron_trace.models.weight_rules import VOCABULARY, WeightRow
from megatron_trace.policy.convert.locations import Location, empty_states, hf_shape, stacks_layers
from megatron_trace.policy.convert.model import (
    Converted,
    Located,
    Model,
    OnProgress,
    by_layer,
    check_names,
)
from megatron_trace.policy.convert.torch_dist_writer import TensorBlock, write_checkpoint
from megatron_trace.policy.hf import HFReader, TensorMeta, nbytes
from megatron_trace.policy.hf_writer import copy_hf_assets
from megatron_trace.policy.manifest import write_manifest

BLOCK_BYTES = 4 << 20
"""Vocabulary tables are read and written in blocks of rows of at most this size."""

FORMAT = {
    "sharded_backend": "torch_dist",
    "sharded_backend_version": 1,
    "common_backend": "torch",
    "common_backend_version": 1,
}
"""metadata.json of Megatron's checkpoints."""


def to_megatron(source: Path, out: Path, progress: OnProgress) -> Converted:
    """Write the checkpoint `out` of the HF folder `source`; it loads in any layout.

    Raises:
        ValueError: the family is not supported; or a tensor is missing, has no place in the model,
            or differs in shape or dtype from what the checkpoint's tensor needs. The message names
            it.
        OSError: something cannot be read or written.
    """
    model = Model.of(source)
    reader = HFReader(source)
    located = model.located(stacked=stacks_layers(model.config))
    metas = _check_folder(reader, model)
    _check_dtypes(source, located, metas)
    groups = []
    for part in by_layer(located):
        blocks = []
        for row, location in part:
            blocks += _blocks(reader, row, location, model, metas[row.hf[0]][1])
        groups.append(blocks)
    groups[-1] += _predictor_blocks(source)
    with whole_folder(out) as folder:
        _write(folder, source, groups, located, progress)
    tied_head = model.tied and HF_HEAD in reader.names()
    remark = f"{HF_HEAD} is tied to the embedding and equals it: stored once" if tied_head else ""
    return Converted(len(metas), sum(map(nbytes, metas.values())), remark)


def _write(
    folder: Path,
    source: Path,
    groups: list[list[TensorBlock]],
    located: list[Located],
    progress: OnProgress,
) -> None:
    (folder / HF).mkdir()
    copy_hf_assets(source, folder / HF)
    (folder / "metadata.json").write_text(json.dumps(FORMAT), encoding="utf-8")
    empty = empty_states(location for _, location in located)
    try:
        torch.save({}, folder / "common.pt")
        sums = write_checkpoint(folder, groups, empty, lambda done: progress(done, len(groups)))
    except RuntimeError as error:
        # On a full disk torch.save fails once more while it closes its file, and raises that.
        raise OSError(f"cannot be written: {error.__context__ or error}") from error
    write_manifest(folder, sums)


def _check_folder(reader: HFReader, model: Model) -> dict[str, TensorMeta]:
    """Dtype and shape of the folder's tensors by name, once these are known to be the model's.

    Raises:
        ValueError: they are not.
    """
    wanted = {name for row in model.rows for name in row.hf}
    present = reader.names()
    if model.tied and HF_HEAD in present:
        _check_tied_head(reader)
        present -= {HF_HEAD}
    check_names(str(reader.folder), wanted, present)
    metas = {name: reader.meta(name) for name in wanted}
    for name, _, shape in metas.values():
        expected = hf_shape(name, model.config)
        if shape != expected:
            raise ValueError(
                f"{reader.folder}: {name} has shape {shape}, but config.json means {expected}"
            )
    return metas


def _check_tied_head(reader: HFReader) -> None:
    """Refuse a tied model whose output layer differs from its embedding.

    transformers does not tie two tables that differ, whatever config.json says, so the model that
    it would compute cannot be expressed by one table.
    """
    head, embedding = reader.meta(HF_HEAD), reader.meta(HF_EMBEDDING)
    same = head[1:] == embedding[1:]
    if same:
        rows = head[2][0]
        for start, stop in _ranges(rows, nbytes(head) // max(rows, 1)):
            part = reader.read(HF_HEAD, start, stop)
            if not part.equal(reader.read(HF_EMBEDDING, start, stop)):
                same = False
                break
    if not same:
        raise ValueError(
            f"{reader.folder}: {HF_HEAD} differs from {HF_EMBEDDING}, but config.json says tie_word_embeddings=true; "
            "set it to false or remove the tensor"
        )


def _check_dtypes(folder: Path, located: list[Located], metas: dict[str, TensorMeta]) -> None:
    """Refuse HF tensors of different dtypes that share one tensor of the checkpoint."""
    first: dict[str, str] = {}
    for row, location in located:
        for name in row.hf:
            other = first.setdefault(location.key, name)
            dtype, expected = metas[name][1], metas[other][1]
            if dtype != expected:
                raise ValueError(
                    f"{folder}: {name} is {dtype} but {other} is {expected}; "
                    "Megatron keeps them in one tensor"
                )


def _blocks(
    reader: HFReader, row: WeightRow, location: Location, model: Model, dtype: torch.dtype
) -> list[TensorBlock]:
    """The row's parameter as the blocks that are to be written."""
    rows, *rest = location.shape
    reads: list[Callable[[], Tensor]]
    if row.rule is VOCABULARY:
        ranges = _ranges(rows, dtype.itemsize * rest[0])
        reads = [partial(_padded_rows, reader, row.hf[0], *part) for part in ranges]
    else:
        ranges = [(0, rows)]
        reads = [lambda: row.rule.merge([reader.read(name) for name in row.hf], model.sizes)]
    return [
        TensorBlock(
            location.key,
            location.axes + location.shape,
            offset=(*location.index, start, *(0 for _ in rest)),
            sizes=(*(1 for _ in location.index), stop - start, *rest),
            dtype=dtype,
            read=read,
        )
        for (start, stop), read in zip(ranges, reads, strict=True)
    ]


def _padded_rows(reader: HFReader, name: str, start: int, stop: int) -> Tensor:
    """Rows `start` to `stop` of the padded vocabulary table; rows beyond the real ones are zero."""
    rows = reader.meta(name)[2][0]
    real = reader.read(name, min(start, rows), min(stop, rows))
    missing = stop - start - real.shape[0]
    return pad(real, (0, 0, 0, missing)) if missing else real


def _predictor_blocks(source: Path) -> list[TensorBlock]:
    file = source / PREDICTOR_FILE
    if not file.exists():
        return []
    try:
        tensors = load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged: {error}") from None
    check_names(str(file), set(PREDICTOR), set(tensors))
    blocks = []
    for name in PREDICTOR:
        shape = tuple(tensors[name].shape)
        offset = tuple(0 for _ in shape)
        read = partial(tensors.__getitem__, name)
        blocks.append(TensorBlock(name, shape, offset, shape, tensors[name].dtype, read))
    return blocks


def _ranges(rows: int, row_bytes: int) -> list[tuple[int, int]]:
    step = max(BLOCK_BYTES // max(row_bytes, 1), 1)
    return [(start, min(start + step, rows)) for start in range(0, rows, step)]
