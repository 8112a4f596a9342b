"""Tasks: read, written as WebDataset shards reproducibly, and streamed in a resumable order."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from megatron_trace.files.atomic import whole_file
from megatron_trace.files.rows import load_rows
from megatron_trace.files.shard_list import list_shards

Task = dict[str, Any]
"""A plain JSON object. Every task has an `id`; the environment defines the rest."""

Tasks = Sequence[Task]


def load_tasks(pattern: str) -> list[Task]:
    """All rows of the files, in file order, whatever they hold.

    Args:
        pattern: path, glob or brace pattern, as `read_rows` takes.

    Raises:
        FileNotFoundError: no file matches.
        BadData: a file, or something in it, cannot be read.
    """
    return [row.content for row in load_rows(pattern)]


def write_shards(
    rows: Iterable[Mapping[str, Any]], pattern: str, rows_per_shard: int = 10_000
) -> list[Path]:
    """Write `rows` as shards. The same rows give the same bytes.

    Args:
        rows: JSON objects.
        pattern: path with one `%d`-style field for the shard number, such as `train-%06d.tar`.
        rows_per_shard: rows in each shard; the last one may hold fewer.

    Returns:
        The paths written. A shard appears under its name only when it is whole. Their sizes and
        checksums are in `shards.json` beside them.
    """
    rows = list(rows)
    paths = []
    for shard, start in enumerate(range(0, len(rows), rows_per_shard)):
        path = Path(pattern % shard)
        _write_shard(path, rows[start : start + rows_per_shard], first=start)
        paths.append(path)
    if paths:
        list_shards(paths, re.sub(r"%\d*d", "*", Path(pattern).name))
    return paths


def _write_shard(path: Path, rows: Sequence[Mapping[str, Any]], first: int) -> None:
    # It imports torch, which takes seconds, and reading tasks does not need it.
    import webdataset as wds

    with (
        whole_file(path) as partial,
        partial.open("wb") as file,
        # Time, owner and key order are fixed, so that the bytes depend on the rows alone.
        wds.TarWriter(file, user="", group="", mtime=0.0) as writer,
    ):
        for number, row in enumerate(rows, first):
            data = json.dumps(row, ensure_ascii=False, sort_keys=True).encode()
            writer.write({"__key__": f"{number:09d}", "json": data})


def task_stream(tasks: Sequence[Task], seed: int, start: int = 0, name: str = "") -> Iterator[Task]:
    """An endless order over `tasks`: one permutation for each epoch, given by `seed` and `name`.

    The n-th task of `task_stream(tasks, seed)` is the first one of `task_stream(tasks, seed,
    start=n)`, so the number of tasks taken so far is the whole state to keep.

    Raises:
        ValueError: no tasks, or a negative `start` (on the first `next`).
    """
    if not tasks or start < 0:
        raise ValueError(
            f"task_stream needs tasks and start >= 0, got {len(tasks)} tasks and start={start}"
        )
    epoch, offset = divmod(start, len(tasks))
    while True:
        order = np.random.default_rng([seed, epoch, *name.encode()]).permutation(len(tasks))
        yield from (tasks[index] for index in order[offset:])
        epoch, offset = epoch + 1, 0
