"""Reads tensors of a torch.distributed.checkpoint piece by piece, without a model."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.checkpoint import (
    ChunkStorageMetadata,
    DefaultLoadPlanner,
    FileSystemReader,
    LoadPlan,
    ReadItem,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list

_ByIndex = dict[tuple[int, ...], list[ChunkStorageMetadata]]
"""The blocks of a tensor, as they lie in the files, by layer and expert."""


class _LoadInto(DefaultLoadPlanner):
    """Puts all that is read into one tensor."""

    def __init__(self, target: Tensor) -> None:
        super().__init__()
        self._target = target

    def resolve_tensor(self, read_item: ReadItem) -> Tensor:
        view = self._target
        ranges = zip(read_item.dest_offsets, read_item.lengths, strict=True)
        for axis, (start, length) in enumerate(ranges):
            view = view.narrow(axis, start, length)
        return view

    def commit_tensor(self, read_item: ReadItem, tensor: Tensor) -> None:
        pass


class TensorReader:
    """The tensors of a checkpoint, read on demand, however they were cut when they were written."""

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
        self._indexed: dict[tuple[str, int], _ByIndex] = {}

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
        """Ranges of rows, 0 to `length`, of `tensor[index]` as they lie in the files."""
        axis = len(index)
        starts = {block.offsets[axis] for block in self._blocks_at(key, index)} | {0}
        edges = [*sorted(start for start in starts if start < length), length]
        return list(pairwise(edges))

    def read(self, key: str, index: tuple[int, ...], start: int, stop: int) -> Tensor:
        """`tensor[index][start:stop]`.

        Raises:
            ValueError: the checkpoint does not hold all of it.
        """
        entry, axis = self._tensors[key], len(index)
        rest = entry.size[axis + 1 :]
        offsets = (*index, start, *(0 for _ in rest))
        sizes = (*(1 for _ in index), stop - start, *rest)
        target = torch.empty(sizes, dtype=entry.properties.dtype)
        wanted = ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes))
        nearby = replace(entry, chunks=self._blocks_at(key, index))
        items = create_read_items_for_chunk_list(key, nearby, [wanted])
        if sum(item.lengths.numel() for item in items) != target.numel():
            raise ValueError(f"the checkpoint does not hold all of {key}{list(index)}")
        self._reader.read_data(LoadPlan(items), _LoadInto(target)).wait()
        return target.reshape(sizes[axis:])

    def _blocks_at(self, key: str, index: tuple[int, ...]) -> list[ChunkStorageMetadata]:
        """The blocks at `index` as they lie in the files."""
        # torch compares what is wanted with every block that it is given. Without this table that
        # would be every expert of every layer, for each expert of each layer.
        axes = len(index)
        if (key, axes) not in self._indexed:
            table: _ByIndex = {}
            for block in self._tensors[key].chunks:
                if any(size != 1 for size in block.sizes[:axes]):
                    raise ValueError(
                        f"{key} is cut in blocks of several layers or experts, which is not supported"
                    )
                table.setdefault(tuple(block.offsets[:axes]), []).append(block)
            self._indexed[key, axes] = table
        return self._indexed[key, axes].get(index, [])
