"""A Hugging Face folder <-> a Megatron distributed checkpoint, tensor by tensor: neither is ever in memory as a whole.

    <checkpoint>/.metadata, *.distcp, common.pt, metadata.json   what megatron.core.dist_checkpointing reads and writes
    <checkpoint>/hf/                                             configuration, tokenizer, chat template
    <checkpoint>/manifest.json                                   size and checksum of all other files

The families' weight maps say which tensors belong together, `stored.py` where they lie. No Megatron-Core is needed.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import pad

from megatron_trace.files.atomic import whole_folder
from megatron_trace.models.architecture import check_architecture
from megatron_trace.models.folders import HF
from megatron_trace.models.predictor import FILE as PREDICTOR_FILE
from megatron_trace.models.predictor import NAMES as PREDICTOR
from megatron_trace.models.weight_map import HF_EMBEDDING, HF_HEAD, expand, family_of, shape_of
from megatron_trace.models.weight_rules import VOCABULARY, Shape, WeightRow
from megatron_trace.policy.convert.stored import (
    Stored,
    empty_states,
    hf_shape,
    layer_of,
    place_of,
    stacks_layers,
)
from megatron_trace.policy.convert.torch_dist import Chunk, TensorReader, ahead, write_checkpoint
from megatron_trace.policy.hf import HFReader, TensorMeta, nbytes, read_config
from megatron_trace.policy.hf_writer import SHARD_BYTES, copy_hf_assets, write_folder
from megatron_trace.policy.manifest import verify, write_manifest

BLOCK_BYTES = 4 << 20
"""Vocabulary tables are read and written in blocks of rows of at most this size."""

FORMAT = {
    "sharded_backend": "torch_dist",
    "sharded_backend_version": 1,
    "common_backend": "torch",
    "common_backend_version": 1,
}
"""metadata.json of Megatron's checkpoints."""

Progress = Callable[[int, int], None]
"""Told after each layer how many parts (embedding, layers, output) are done, and of how many."""


@dataclass(frozen=True)
class Converted:
    """What was done.

    Attributes:
        tensors, size: number and bytes of the model's HF tensors.
        remark: what the user should know, or "".
    """

    tensors: int
    size: int
    remark: str = ""


@dataclass(frozen=True)
class _Model:
    """A model as its config.json describes it, found in `folder`."""

    folder: Path
    config: dict[str, Any]
    rows: list[WeightRow]
    sizes: Shape
    tied: bool

    @classmethod
    def of(cls, folder: Path) -> "_Model":
        config = read_config(folder)
        try:
            check_architecture(config)
            tied = bool(config.get("tie_word_embeddings", False))
            rows = expand(family_of(config["model_type"]), config, tied=tied)
            model = cls(folder, config, rows, shape_of(config), tied)
            model.places(stacked=stacks_layers(config))
        except KeyError as error:
            raise ValueError(f"{folder / 'config.json'} lacks {error.args[0]}") from None
        except ValueError as error:
            raise ValueError(f"{folder}: {error}") from None
        return model

    def places(self, *, stacked: bool) -> list[Stored]:
        """Of all rows, in order."""
        return [place_of(row, self.config, stacked=stacked) for row in self.rows]


def to_megatron(source: Path, out: Path, progress: Progress) -> Converted:
    """Write the checkpoint `out` of the HF folder `source`; it loads in any layout.

    Raises:
        ValueError: the family is not supported, or a tensor is missing, too much, or of another shape or dtype than
            its neighbours; the message names it.
        OSError: something cannot be read or written.
    """
    model = _Model.of(source)
    reader = HFReader(source)
    metas = _check_folder(reader, model)
    _check_dtypes(model, metas)
    groups: list[list[Chunk]] = []
    places = model.places(stacked=stacks_layers(model.config))
    for part in _parts(model, places):
        groups.append(
            [chunk for row, place in part for chunk in _chunks(reader, row, place, model, metas)]
        )
    groups[-1] += _predictor_chunks(source)
    with whole_folder(out) as folder:
        (folder / HF).mkdir()
        copy_hf_assets(source, folder / HF)
        torch.save({}, folder / "common.pt")
        (folder / "metadata.json").write_text(json.dumps(FORMAT), encoding="utf-8")
        known = write_checkpoint(
            folder, groups, empty_states(places), lambda done: progress(done, len(groups))
        )
        write_manifest(folder, known)
    tied_head = model.tied and HF_HEAD in reader.names()
    remark = f"{HF_HEAD} is tied to the embedding and equals it: stored once" if tied_head else ""
    return Converted(len(metas), sum(map(nbytes, metas.values())), remark)


def to_hf(
    checkpoint: Path,
    out: Path,
    progress: Progress,
    *,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = SHARD_BYTES,
) -> Converted:
    """Write the HF folder `out` of a checkpoint that a run or `to_megatron` wrote.

    Args:
        dtype: cast the model to it; by default it stays as it is stored.
        max_shard_bytes: of a file of weights.

    Raises:
        megatron_trace.policy.manifest.DamagedCheckpoint: `checkpoint` is none, is incomplete or was changed.
        ValueError: it holds another model than its hf/config.json describes; the message names the tensor.
        OSError: something cannot be read or written.
    """
    with ThreadPoolExecutor(1) as pool:
        # Beside the conversion, which shows nothing before the files are found to be as they were written.
        intact = pool.submit(verify, checkpoint)
        try:
            return _to_hf(
                checkpoint, out, progress, intact, dtype=dtype, max_shard_bytes=max_shard_bytes
            )
        except Exception:
            intact.result()  # damage is the better explanation
            raise


def _to_hf(
    checkpoint: Path,
    out: Path,
    progress: Progress,
    intact: Future[None],
    *,
    dtype: torch.dtype | None,
    max_shard_bytes: int,
) -> Converted:
    model = _Model.of(checkpoint / HF)
    reader = TensorReader(checkpoint)
    stacked = not any(re.match(r"decoder\.layers\.\d", key) for key in reader.names())
    places = model.places(stacked=stacked)
    _check_checkpoint(checkpoint, reader, places, model)
    metadata = [
        (name, dtype or reader.dtype(place.key), hf_shape(name, model.config))
        for row, place in zip(model.rows, places, strict=True)
        for name in row.hf
    ]
    extra: dict[str, dict[str, Tensor]] = {}
    if PREDICTOR[0] in reader.names():
        extra[PREDICTOR_FILE] = {
            name: reader.read(name, (), 0, reader.shape(name)[0]) for name in PREDICTOR
        }

    def pieces() -> Iterator[tuple[str, Tensor]]:
        yield from ahead(_pieces(reader, model, places, progress))
        intact.result()

    write_folder(
        out,
        model.folder,
        pieces(),
        metadata,
        extra,
        config_dtype=dtype,
        max_shard_bytes=max_shard_bytes,
    )
    return Converted(len(metadata), sum(map(nbytes, metadata)))


def _check_folder(reader: HFReader, model: _Model) -> dict[str, TensorMeta]:
    """What the folder's tensors are, by name, when they are those of the model."""
    wanted = {name for row in model.rows for name in row.hf}
    stored = reader.names()
    if model.tied and HF_HEAD in stored:
        _check_tied_head(reader)
        stored -= {HF_HEAD}
    _check_names(str(reader.folder), wanted, stored)
    metas = {name: reader.meta(name) for name in wanted}
    for name, _, shape in metas.values():
        if shape != hf_shape(name, model.config):
            raise ValueError(
                f"{reader.folder}: {name} has shape {shape}, but config.json means {hf_shape(name, model.config)}"
            )
    return metas


def _check_tied_head(reader: HFReader) -> None:
    """A tied model has one table. transformers does not tie two that differ, whatever config.json says."""
    rows = reader.meta(HF_HEAD)[2][0]
    same = reader.meta(HF_HEAD)[1:] == reader.meta(HF_EMBEDDING)[1:] and all(
        reader.read(HF_HEAD, start, stop).equal(reader.read(HF_EMBEDDING, start, stop))
        for start, stop in _ranges(rows, nbytes(reader.meta(HF_HEAD)) // max(rows, 1))
    )
    if not same:
        raise ValueError(
            f"{reader.folder}: {HF_HEAD} differs from {HF_EMBEDDING}, but config.json says tie_word_embeddings=true; "
            "set it to false or remove the tensor"
        )


def _check_names(where: str, wanted: set[str], stored: set[str]) -> None:
    if missing := sorted(wanted - stored):
        raise ValueError(
            f"{where} lacks {len(missing)} tensors of the model, the first {missing[0]}"
        )
    if extra := sorted(stored - wanted):
        raise ValueError(
            f"{where} holds {len(extra)} tensors that the model has no place for, the first {extra[0]}"
        )


def _check_checkpoint(
    checkpoint: Path, reader: TensorReader, places: Sequence[Stored], model: _Model
) -> None:
    predictor = {key for key in reader.names() if key.startswith("predictor.")}
    wanted = {place.key for place in places} | (set(PREDICTOR) if predictor else set())
    _check_names(
        str(checkpoint), wanted, {key for key in reader.names() if not key.startswith("optimizer.")}
    )
    for row, place in zip(model.rows, places, strict=True):
        found, expected = reader.shape(place.key), place.axes + place.shape
        axis = len(place.axes)
        # Another padding of the vocabulary is as good.
        if row.rule is VOCABULARY and found[axis:][:1] >= (model.sizes.vocabulary,):
            found, expected = (
                found[:axis] + found[axis + 1 :],
                expected[:axis] + expected[axis + 1 :],
            )
        if found != expected:
            raise ValueError(
                f"{checkpoint}: {place.key} has shape {reader.shape(place.key)}, but hf/config.json means "
                f"{place.axes + place.shape}"
            )


def _check_dtypes(model: _Model, metas: dict[str, TensorMeta]) -> None:
    first: dict[str, str] = {}
    for row, place in zip(
        model.rows, model.places(stacked=stacks_layers(model.config)), strict=True
    ):
        for name in row.hf:
            dtype, other = metas[name][1], first.setdefault(place.key, name)
            if dtype != metas[other][1]:
                raise ValueError(
                    f"{model.folder}: {name} is {dtype} but {other} is {metas[other][1]}; "
                    "Megatron keeps them in one tensor"
                )


def _chunks(
    reader: HFReader, row: WeightRow, place: Stored, model: _Model, metas: dict[str, TensorMeta]
) -> list[Chunk]:
    """The row as the blocks that are to be written."""
    dtype = metas[row.hf[0]][1]
    if row.rule is VOCABULARY:
        ranges = _ranges(place.shape[0], dtype.itemsize * place.shape[1])
        reads: list[Callable[[], Tensor]] = [
            partial(_padded_rows, reader, row.hf[0], *part) for part in ranges
        ]
    else:
        ranges = [(0, place.shape[0])]
        reads = [lambda: row.rule.merge([reader.read(name) for name in row.hf], model.sizes)]
    shape, rest = place.axes + place.shape, place.shape[1:]
    return [
        Chunk(
            place.key,
            shape,
            offset=(*place.index, start, *(0 for _ in rest)),
            sizes=(*(1 for _ in place.index), stop - start, *rest),
            dtype=dtype,
            read=read,
        )
        for (start, stop), read in zip(ranges, reads, strict=True)
    ]


def _padded_rows(reader: HFReader, name: str, start: int, stop: int) -> Tensor:
    """Rows of the vocabulary table; those after its end are zero."""
    rows = reader.meta(name)[2][0]
    real = reader.read(name, min(start, rows - 1), min(stop, rows))[: max(rows - start, 0)]
    return (
        pad(real, (0, 0, 0, stop - start - real.shape[0])) if real.shape[0] < stop - start else real
    )


def _predictor_chunks(source: Path) -> list[Chunk]:
    if not (source / PREDICTOR_FILE).exists():
        return []
    try:
        tensors = load_file(source / PREDICTOR_FILE)
    except SafetensorError as error:
        raise ValueError(f"{source / PREDICTOR_FILE} is damaged: {error}") from None
    _check_names(str(source / PREDICTOR_FILE), set(PREDICTOR), set(tensors))
    return [
        Chunk(
            name,
            shape,
            tuple(0 for _ in shape),
            shape,
            tensors[name].dtype,
            partial(tensors.__getitem__, name),
        )
        for name in PREDICTOR
        for shape in [tuple(tensors[name].shape)]
    ]


def _pieces(
    reader: TensorReader, model: _Model, places: Sequence[Stored], progress: Progress
) -> Iterator[tuple[str, Tensor]]:
    """The HF tensors in the order of the rows, vocabulary tables in blocks of rows."""
    parts = _parts(model, places)
    for number, part in enumerate(parts, start=1):
        for row, place in part:
            if row.rule is VOCABULARY:
                for start, stop in reader.blocks(place.key, place.index, model.sizes.vocabulary):
                    yield row.hf[0], reader.read(place.key, place.index, start, stop)
            else:
                full = reader.read(place.key, place.index, 0, place.shape[0])
                yield from zip(row.hf, row.rule.split(full, model.sizes), strict=True)
        progress(number, len(parts))


def _parts(model: _Model, places: Sequence[Stored]) -> list[list[tuple[WeightRow, Stored]]]:
    """The rows and their places: embedding, layer after layer, final norm and output layer."""
    pairs = zip(model.rows, places, strict=True)
    return [list(part) for _, part in groupby(pairs, key=lambda pair: layer_of(pair[0]))]


def _ranges(rows: int, row_bytes: int) -> list[tuple[int, int]]:
    step = max(BLOCK_BYTES // max(row_bytes, 1), 1)
    return [(start, min(start + step, rows)) for start in range(0, rows, step)]
