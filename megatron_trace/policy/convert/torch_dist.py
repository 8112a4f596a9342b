"""Reads and writes the tensors of a torch.distributed.checkpoint piece by piece, in one process, without a model."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor
from torch.distributed.checkpoint import (
    ChunkStorageMetadata,
    DefaultLoadPlanner,
    DefaultSavePlanner,
    FileSystemReader,
    FileSystemWriter,
    LoadPlan,
    ReadItem,
    SavePlan,
    TensorStorageMetadata,
    WriteItem,
)
from torch.distributed.checkpoint.default_planner import create_default_global_save_plan
from torch.distributed.checkpoint.metadata import MetadataIndex, TensorProperties
from torch.distributed.checkpoint.planner import TensorWriteData, WriteItemType
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list

from megatron_trace.policy.manifest import Entry, checksum

T = TypeVar("T")


@dataclass(frozen=True)
class Chunk:
    """A block of a tensor that is to be written.

    Attributes:
        key: the tensor.
        shape: the whole tensor's.
        offset, sizes: the block within it.
        dtype: the tensor's.
        read: brings the block, in any shape of as many elements; it is called once and the block not used again.
    """

    key: str
    shape: tuple[int, ...]
    offset: tuple[int, ...]
    sizes: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]


def _serialized_none() -> bytes:
    stream = BytesIO()
    torch.save([None], stream)
    return stream.getvalue()


# As Megatron-Core stores an object: a list of what the process that wrote it held.
NOTHING = _serialized_none()


class _LazySave(DefaultSavePlanner):
    """Has the blocks read in the order in which they are written, and takes their memory back after.

    (torch's writer would keep every block until its file is complete.)
    """

    def __init__(self, blocks: Iterator[tuple[MetadataIndex, Tensor]]) -> None:
        super().__init__()
        self._blocks = blocks
        self._written: Tensor | None = None

    def resolve_data(self, write_item: WriteItem) -> Tensor | BytesIO:
        if write_item.type == WriteItemType.BYTE_IO:
            return BytesIO(NOTHING)
        if self._written is not None:
            memory = self._written.untyped_storage()
            if (
                memory.resizable() and memory.nbytes() == self._written.nbytes
            ):  # no part of something larger
                memory.resize_(0)
        index, self._written = next(self._blocks)
        if index != write_item.index:
            raise AssertionError(f"torch wrote {write_item.index} where {index} was due")
        return self._written


def write_checkpoint(
    folder: Path,
    groups: Sequence[Sequence[Chunk]],
    empty: Iterable[str],
    written: Callable[[int], None],
) -> dict[str, Entry]:
    """Write a checkpoint of tensors.

    Args:
        folder: exists, and holds no checkpoint.
        groups: the blocks of one file each.
        empty: names of objects that are None.
        written: told after each group how many are.

    Returns:
        size and checksum of every file of tensors, by name.
    """
    # Without copying ahead the writer keeps to the order also where there is a GPU.
    writer = FileSystemWriter(folder, sync_files=False, per_thread_copy_ahead=0)
    writer.set_up_storage_writer(True)
    blocks = (
        (_index(chunk), chunk.read().reshape(chunk.sizes)) for group in groups for chunk in group
    )
    planner = _LazySave(ahead(blocks))
    items = [[_write_item(chunk) for chunk in group] for group in groups]
    items[-1] += [WriteItem(MetadataIndex(name), WriteItemType.BYTE_IO) for name in sorted(empty)]
    plans, metadata = create_default_global_save_plan([SavePlan(group) for group in items])
    results = []
    with ThreadPoolExecutor(1) as pool:
        sums = {}
        for number, plan in enumerate(writer.prepare_global_plan(plans), start=1):
            results.append(writer.write_data(plan, planner).wait())
            for name in {result.storage_data.relative_path for result in results[-1]}:
                sums[name] = pool.submit(checksum, folder / name)
            written(number)
        writer.finish(metadata, results)
        return {name: entry.result() for name, entry in sums.items()}


def _index(chunk: Chunk) -> MetadataIndex:
    return MetadataIndex(chunk.key, torch.Size(chunk.offset))


def _write_item(chunk: Chunk) -> WriteItem:
    data = TensorWriteData(
        chunk=ChunkStorageMetadata(torch.Size(chunk.offset), torch.Size(chunk.sizes)),
        properties=TensorProperties(dtype=chunk.dtype),
        size=torch.Size(chunk.shape),
    )
    return WriteItem(index=_index(chunk), type=WriteItemType.SHARD, tensor_data=data)


class _LoadInto(DefaultLoadPlanner):
    """Puts all that is read into one tensor."""

    def __init__(self, target: Tensor) -> None:
        super().__init__()
        self._target = target

    def resolve_tensor(self, read_item: ReadItem) -> Tensor:
        view = self._target
        for axis, (start, length) in enumerate(
            zip(read_item.dest_offsets, read_item.lengths, strict=True)
        ):
            view = view.narrow(axis, start, length)
        return view

    def commit_tensor(self, read_item: ReadItem, tensor: Tensor) -> None:
        pass


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items; another thread makes the next one while one is in use."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item


class TensorReader:
    """The tensors of a checkpoint, read when asked for, however they were cut when they were written."""

    def __init__(self, folder: Path) -> None:
        """Read the table of contents."""
        self._reader = FileSystemReader(folder)
        metadata = self._reader.read_metadata()
        self._reader.set_up_storage_reader(metadata, True)
        self._tensors = {
            key: entry
            for key, entry in metadata.state_dict_metadata.items()
            if isinstance(entry, TensorStorageMetadata)
        }
        self._near: dict[tuple[str, int], dict[tuple[int, ...], list[ChunkStorageMetadata]]] = {}

    def names(self) -> set[str]:
        """The keys of all tensors."""
        return set(self._tensors)

    def shape(self, key: str) -> tuple[int, ...]:
        """A tensor's shape."""
        return tuple(self._tensors[key].size)

    def dtype(self, key: str) -> torch.dtype:
        """A tensor's dtype."""
        return self._tensors[key].properties.dtype

    def blocks(self, key: str, index: tuple[int, ...], length: int) -> list[tuple[int, int]]:
        """Ranges of rows, 0 to `length`, in which `tensor[index]` is best read: as they lie in the files."""
        axis = len(index)
        starts = {chunk.offsets[axis] for chunk in self._chunks(key, index)} | {0}
        edges = [*sorted(start for start in starts if start < length), length]
        return list(pairwise(edges))

    def read(self, key: str, index: tuple[int, ...], start: int, stop: int) -> Tensor:
        """`tensor[index][start:stop]`.

        Raises:
            ValueError: the checkpoint does not hold all of it.
        """
        entry, axis = self._tensors[key], len(index)
        sizes = (*(1 for _ in index), stop - start, *entry.size[axis + 1 :])
        target = torch.empty(sizes, dtype=entry.properties.dtype)
        wanted = ChunkStorageMetadata(
            torch.Size((*index, start, *(0 for _ in entry.size[axis + 1 :]))), torch.Size(sizes)
        )
        near = replace(entry, chunks=self._chunks(key, index))
        items = create_read_items_for_chunk_list(key, near, [wanted])
        if sum(item.lengths.numel() for item in items) != target.numel():
            raise ValueError(f"the checkpoint does not hold all of {key}{list(index)}")
        self._reader.read_data(LoadPlan(items), _LoadInto(target)).wait()
        return target.reshape(sizes[axis:])

    def _chunks(self, key: str, index: tuple[int, ...]) -> list[ChunkStorageMetadata]:
        """The stored blocks at `index`. (A search among all blocks of all experts would take long.)"""
        axes = len(index)
        if (key, axes) not in self._near:
            table: dict[tuple[int, ...], list[ChunkStorageMetadata]] = {}
            for chunk in self._tensors[key].chunks:
                if any(size != 1 for size in chunk.sizes[:axes]):
                    raise ValueError(
                        f"{key} is cut in blocks of several layers or experts, which is not supported"
                    )
                table.setdefault(tuple(chunk.offsets[:axes]), []).append(chunk)
            self._near[key, axes] = table
        return self._near[key, axes].get(index, [])
