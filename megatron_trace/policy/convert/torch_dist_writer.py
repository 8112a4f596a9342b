"""Writes a torch.distributed.checkpoint block by block in one process, without a model."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.checkpoint import (
    ChunkStorageMetadata,
    DefaultSavePlanner,
    FileSystemWriter,
    SavePlan,
    WriteItem,
)
from torch.distributed.checkpoint.default_planner import create_default_global_save_plan
from torch.distributed.checkpoint.metadata import MetadataIndex, TensorProperties
from torch.distributed.checkpoint.planner import TensorWriteData, WriteItemType

from megatron_trace.policy.convert.prefetch import prefetched
from megatron_trace.policy.manifest import Entry, checksum


@dataclass(frozen=True)
class TensorBlock:
    """A block of a tensor that is to be written.

    Attributes:
        key: name of the tensor.
        shape: of the whole tensor.
        offset, sizes: the block within the tensor.
        dtype: of the tensor.
        read: returns the block, in any shape with the same number of elements. It is called once,
            and the memory of what it returns may be released afterwards.
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


# Megatron-Core stores an object as a list of the values of the processes that wrote it.
NOTHING = _serialized_none()


class _LazySave(DefaultSavePlanner):
    """Gives torch's writer each block when it is due, and releases the memory of the one before.

    Without the release torch's writer would keep every block until its file is complete.
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
            # A block that is a part of something larger does not own its memory.
            if memory.resizable() and memory.nbytes() == self._written.nbytes:
                memory.resize_(0)
        index, self._written = next(self._blocks)
        if index != write_item.index:
            raise AssertionError(f"torch wrote {write_item.index} where {index} was due")
        return self._written


def write_checkpoint(
    folder: Path,
    groups: Sequence[Sequence[TensorBlock]],
    empty: Iterable[str],
    written: Callable[[int], None],
) -> dict[str, Entry]:
    """Write a checkpoint of tensors.

    Args:
        folder: exists, and holds no checkpoint.
        groups: the blocks of one file each.
        empty: names of objects that are None.
        written: called after each group with the number of finished groups.

    Returns:
        size and checksum of every file of tensors, by name.
    """
    # Copying ahead, which torch's writer does where there is a GPU, would change the order of
    # writing.
    writer = FileSystemWriter(folder, sync_files=False, per_thread_copy_ahead=0)
    writer.set_up_storage_writer(True)
    planner = _LazySave(prefetched(_read(groups)))
    items = [[_write_item(block) for block in group] for group in groups]
    items[-1] += [WriteItem(MetadataIndex(name), WriteItemType.BYTE_IO) for name in sorted(empty)]
    plans, metadata = create_default_global_save_plan([SavePlan(group) for group in items])
    results = []
    # Checksums are taken while the file is still in the page cache, and while the next one is
    # written.
    with ThreadPoolExecutor(1) as pool:
        sums = {}
        for number, plan in enumerate(writer.prepare_global_plan(plans), start=1):
            results.append(writer.write_data(plan, planner).wait())
            for name in {result.storage_data.relative_path for result in results[-1]}:
                sums[name] = pool.submit(checksum, folder / name)
            written(number)
        writer.finish(metadata, results)
        return {name: entry.result() for name, entry in sums.items()}


def _read(groups: Sequence[Sequence[TensorBlock]]) -> Iterator[tuple[MetadataIndex, Tensor]]:
    for group in groups:
        for block in group:
            yield _index(block), block.read().reshape(block.sizes)


def _index(block: TensorBlock) -> MetadataIndex:
    return MetadataIndex(block.key, torch.Size(block.offset))


def _write_item(block: TensorBlock) -> WriteItem:
    data = TensorWriteData(
        chunk=ChunkStorageMetadata(torch.Size(block.offset), torch.Size(block.sizes)),
        properties=TensorProperties(dtype=block.dtype),
        size=torch.Size(block.shape),
    )
    return WriteItem(index=_index(block), type=WriteItemType.SHARD, tensor_data=data)
