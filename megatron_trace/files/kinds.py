"""The kinds of data files. The extension says of which kind a file is."""

from importlib.util import find_spec

from megatron_trace.files.problems import BadData
from megatron_trace.files.shards import shard_paths

TAR, LINES, GZIP_LINES, PARQUET = ".tar", ".jsonl", ".jsonl.gz", ".parquet"

KINDS = (TAR, LINES, GZIP_LINES, PARQUET)


def extension_of(path: str) -> str:
    """The one of `KINDS` that `path` ends with; capitals count as small letters.

    Raises:
        BadData: there is none.
    """
    for extension in KINDS:
        if path.lower().endswith(extension):
            return extension
    raise BadData(
        f"{path}: is no data file by its extension; data files are {TAR} (WebDataset shards), "
        f"{LINES} or {GZIP_LINES} (JSON lines), and {PARQUET}"
    )


def data_paths(pattern: str) -> list[str]:
    """The data files that `pattern` names, as `shard_paths` does.

    Raises:
        FileNotFoundError: no file matches.
        BadData: a file is of no kind that can be read here, or a folder's list is damaged.
    """
    paths = shard_paths(pattern)
    for path in paths:
        if extension_of(path) == PARQUET and find_spec("pyarrow") is None:
            remedy = f"pip install --no-deps pyarrow, or convert the file to {LINES}"
            raise BadData(f"{path}: cannot be read without pyarrow; {remedy}")
    return paths
