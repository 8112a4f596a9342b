"""Rows of Arrow record batches as plain JSON objects.

Dates and timestamps become ISO texts. A column of any other type that JSON lacks, such as bytes, is
refused.
"""

import math
from collections.abc import Iterable, Iterator
from datetime import date
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

UNFIT = (ValueError, OverflowError, KeyError)
"""What pyarrow raises for a value that Python cannot hold: a year 20000, text that is no UTF-8."""


def rows_of(batch: "pa.RecordBatch") -> Iterator[dict[str, Any] | str]:
    """Every row of a batch as plain JSON, or what is wrong with it."""
    try:
        rows = batch.to_pylist()
    except UNFIT:
        # It is ten times slower to convert single rows, but tells which row it is.
        rows = [_row(batch.slice(index, 1)) for index in range(batch.num_rows)]
    for row in rows:
        try:
            yield row if isinstance(row, str) else _plain(row)
        except ValueError as error:
            yield str(error)


def _row(batch: "pa.RecordBatch") -> dict[str, Any] | str:
    try:
        return batch.to_pylist()[0]
    except UNFIT as error:
        return f"cannot be read ({one_line(error)})"


def _plain(value: Any, place: str = "") -> Any:
    """Python's own values as JSON has them; `place` is the column, dotted."""
    if isinstance(value, dict):
        return {name: _plain(one, f"{place}.{name}".lstrip(".")) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one, place) for one in value]
    # pyarrow gives pandas' timestamps where pandas is installed; others cannot hold them.
    if getattr(value, "nanosecond", 0):
        raise ValueError(f"cannot be read (Nanosecond resolution of {value})")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"column {place}: {value} is no number of JSON")
    return value


def wrong_columns(fields: Iterable["pa.Field"], place: str = "") -> str:
    """Which column no JSON object can hold, and why, or ""; `place` is the struct's, dotted."""
    names: set[str] = set()
    for field in fields:
        name = f"{place}.{field.name}".lstrip(".")
        if name in names:
            return f"the column {name!r} is there twice"
        names.add(name)
        if problem := _wrong_type(field.type, name):
            return problem
    return ""


def _wrong_type(kind: "pa.DataType", name: str) -> str:
    from pyarrow import types

    if types.is_struct(kind):
        return wrong_columns(kind, name)
    lists = (types.is_list, types.is_large_list, types.is_fixed_size_list, types.is_list_view)
    if any(is_one(kind) for is_one in (*lists, types.is_dictionary)):
        return _wrong_type(kind.value_type, name)
    texts = (types.is_string, types.is_large_string, types.is_string_view)
    numbers = (types.is_boolean, types.is_integer, types.is_floating, types.is_null)
    if any(is_one(kind) for is_one in (*texts, *numbers, types.is_date, types.is_timestamp)):
        return ""
    return f"the column {name!r} is of type {kind}, which JSON lacks; leave it out, or make it text"


def one_line(error: BaseException) -> str:
    """The text of an error of pyarrow."""
    return " ".join(str(error).split())
