"""Parquet: a row as a plain JSON object (`arrow_rows.py`). Read in batches, never whole."""

from collections.abc import Iterator
from typing import Any

from megatron_trace.files.archive import first_bytes, wrong_start
from megatron_trace.files.arrow_rows import one_line, rows_of, wrong_columns

BATCH_ROWS = 1024
BUFFER_BYTES = 1 << 20


def read_parquet(path: str, problems: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number, from 1, and content of every row of the Parquet file `path`.

    Args:
        problems: gets a line for everything that cannot be read; after damage that is all the rest.
    """
    # It takes a while to import, and may not be installed where nobody reads Parquet.
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        if problem := wrong_start(first_bytes(path)):
            problems.append(f"{path}: {problem}")
            return
        # Its defaults would read a whole column of a row group, and some files are one row group.
        reading = {"buffer_size": BUFFER_BYTES, "pre_buffer": False}
        with pq.ParquetFile(path, page_checksum_verification=True, **reading) as file:
            if problem := wrong_columns(file.schema_arrow):
                problems.append(f"{path}: {problem}")
                return
            for batch in file.iter_batches(BATCH_ROWS, use_threads=False):
                for row in rows_of(batch):
                    number += 1
                    if isinstance(row, str):
                        problems.append(f"{path}: row {number}: {row}")
                    else:
                        yield number, row
    # pyarrow raises an OSError without a number where a file is damaged.
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None)
        damage = f"is damaged after row {number}" if number else "is no Parquet, or damaged"
        told = f"cannot be read ({reason})" if reason else f"{damage} ({one_line(error)})"
        problems.append(f"{path}: {told}; copy the file again")
