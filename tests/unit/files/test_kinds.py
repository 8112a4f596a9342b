"""Of which kind a data file is: its extension alone says so."""

import sys

import pytest

from megatron_trace.files.kinds import data_paths, extension_of
from megatron_trace.files.problems import BadData


@pytest.mark.parametrize(
    ("path", "extension"),
    [
        ("a/train-000.tar", ".tar"),
        ("v1.5.jsonl", ".jsonl"),
        ("train.jsonl.gz", ".jsonl.gz"),
        ("TRAIN.PARQUET", ".parquet"),
    ],
)
def test_the_extension_is_the_kind(path, extension) -> None:
    assert extension_of(path) == extension


@pytest.mark.parametrize("name", ["a.csv", "a.json.gz", "a.tar.gz", "a.parquet.gz", "jsonl", "a"])
def test_any_other_extension_is_one_line_that_lists_the_kinds(tmp_path, name) -> None:
    (tmp_path / name).touch()
    said = rf"{name}: is no data file .*\.tar \(WebDataset.*\.jsonl or \.jsonl\.gz .*\.parquet, and folders"
    with pytest.raises(BadData, match=said):
        data_paths(f"{tmp_path}/*")


def test_parquet_without_pyarrow_is_one_line_that_says_how_to_get_it(tmp_path, monkeypatch) -> None:
    for name in ("a.jsonl", "b.parquet"):
        (tmp_path / name).touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert data_paths(f"{tmp_path}/*.jsonl") == [f"{tmp_path}/a.jsonl"]
    with pytest.raises(BadData, match=r"b\.parquet: cannot be read without pyarrow; pip install"):
        data_paths(f"{tmp_path}/*")
