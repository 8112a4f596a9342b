"""A folder that `Dataset.save_to_disk` of the package `datasets` wrote.

`state.json` names the Arrow files in their order. They are streams of record batches (Arrow IPC),
which pyarrow reads, so the package itself is not needed.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from megatron_trace.files.arrow_rows import one_line, rows_of, wrong_columns
from megatron_trace.files.problems import BadData

STATE = "state.json"
SPLITS = "dataset_dict.json"

BATCH_ROWS = 1024

END = b"\xff\xff\xff\xff\x00\x00\x00\x00"
"""Ends an Arrow stream. pyarrow takes a file that is cut between two batches for a whole one."""


def is_saved_dataset(path: Path) -> bool:
    """Whether a folder is one; a line of its own for a folder of several splits.

    Raises:
        BadData: it holds splits, of which one must be named.
    """
    if (path / SPLITS).is_file():
        splits = _json(path / SPLITS).get("splits") or ["train"]
        raise BadData(f"{path}: holds the splits {', '.join(splits)}; name one: {path}/{splits[0]}")
    return (path / STATE).is_file()


def data_files(folder: Path) -> list[str]:
    """Names of the Arrow files, in the order of their rows.

    Raises:
        BadData: `state.json` is damaged, or the rows are selected by an index.
    """
    state = _json(folder / STATE)
    # Before 2.0 `datasets` saved `shuffle` and `select` as an index over unchanged files.
    if state.get("_indices_files") or state.get("_indices_data_files"):
        remedy = "save it again after flatten_indices()"
        raise BadData(f"{folder}: its rows are selected by an index; {remedy}")
    try:
        names = [str(one["filename"]) for one in state["_data_files"]]
    except (KeyError, TypeError):
        raise BadData(f"{folder}: {STATE} names no data files; save it again") from None
    if others := [name for name in names if Path(name).name != name]:
        raise BadData(f"{folder}: {STATE} names {others[0]}, which is not in the folder")
    return names


def read_saved_dataset(path: str, problems: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number, from 1, and content of every row of the folder `path`.

    Args:
        problems: gets a line for everything that cannot be read.
    """
    folder, number = Path(path), 0
    try:
        names, columns = data_files(folder), _columns(folder)
    except BadData as error:
        problems.append(str(error))
        return
    for name in names:
        for row in _read_stream(folder / name, columns, problems):
            # Rows that cannot be read count as well: numbers are part of ids.
            number += 1
            if isinstance(row, str):
                problems.append(f"{path}: row {number}: {row}")
            else:
                yield number, row


def _read_stream(
    file: Path, columns: list[str] | None, problems: list[str]
) -> Iterator[dict[str, Any] | str]:
    import pyarrow as pa

    try:
        with file.open("rb") as stream:
            stream.seek(-min(len(END), file.stat().st_size), 2)
            whole = stream.read() == END
        with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as reader:
            if problem := wrong_columns(reader.schema):
                problems.append(f"{file}: {problem}")
                return
            for batch in reader:
                kept = batch if columns is None else batch.select(columns)
                for start in range(0, kept.num_rows, BATCH_ROWS):
                    yield from rows_of(kept.slice(start, BATCH_ROWS))
        if not whole:
            problems.append(f"{file}: is cut; copy the file again")
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        reason = getattr(error, "strerror", None)
        told = f"cannot be read ({reason})" if reason else f"is damaged ({one_line(error)})"
        problems.append(f"{file}: {told}; copy the file again")


def _columns(folder: Path) -> list[str] | None:
    """The columns that `set_format` chose before the dataset was saved; None: all."""
    state = _json(folder / STATE)
    return None if state.get("_output_all_columns") else state.get("_format_columns")


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadData(f"{file}: cannot be read ({one_line(error)}); save it again") from None
    if not isinstance(content, dict):
        raise BadData(f"{file}: is no JSON object; save it again")
    return content
