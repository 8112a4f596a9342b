"""The kinds of data files. The extension says of which kind a file is; a folder has none."""

from importlib.util import find_spec
from pathlib import Path

from megatron_trace.files.problems import BadData
from megatron_trace.files.remote import file_name, is_url, remote_matches, shown
from megatron_trace.files.saved_dataset import is_saved_dataset
from megatron_trace.files.shards import matches, parts

TAR, LINES, GZIP_LINES, ARRAY, PARQUET = ".tar", ".jsonl", ".jsonl.gz", ".json", ".parquet"

KINDS = (TAR, LINES, GZIP_LINES, ARRAY, PARQUET)

SAVED_DATASET = ""
"""Stands for the extension of a folder that the package `datasets` saved."""


def extension_of(path: str) -> str:
    """The one of `KINDS` that `path` ends with; capitals count as small letters.

    Returns:
        `SAVED_DATASET` for a folder; a URL without a dot in its last part, or with a slash at its end, is one.

    Raises:
        BadData: there is none.
    """
    name = file_name(path).lower()
    for extension in KINDS:
        if name.endswith(extension):
            return extension
    like_folder = "." not in name or path.endswith("/")
    if like_folder if is_url(path) else Path(path).is_dir():
        return SAVED_DATASET
    raise BadData(
        f"{shown(path)}: is no data file by its extension; data files are {TAR} (WebDataset shards), "
        f"{LINES} or {GZIP_LINES} (JSON lines), {ARRAY} (an array of objects), {PARQUET}, and "
        "folders that the package datasets saved"
    )


def data_paths(pattern: str) -> list[str]:
    """The data files that `pattern` names, as `shard_paths` does, and URLs.

    Raises:
        FileNotFoundError: no file matches.
        BadData: a file is of no kind that can be read here, or a folder's list is damaged.
    """
    paths = [path for part in parts(pattern) for path in _matches(part)]
    for path in paths:
        if extension_of(path) in (PARQUET, SAVED_DATASET) and find_spec("pyarrow") is None:
            remedy = f"pip install --no-deps pyarrow, or convert the file to {LINES}"
            raise BadData(f"{shown(path)}: cannot be read without pyarrow; {remedy}")
    return paths


def _matches(part: str) -> list[str]:
    if is_url(part):
        return remote_matches(part, folders=extension_of(part) == SAVED_DATASET)
    return matches(part, lambda path: path.is_file() or (path.is_dir() and is_saved_dataset(path)))
