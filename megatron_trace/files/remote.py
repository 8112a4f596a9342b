"""Files behind URLs such as s3://, gs://, hf:// and https://, which the library fsspec reads."""

import posixpath
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from megatron_trace.files.problems import BadData
from megatron_trace.files.saved_dataset import STATE, data_files
from megatron_trace.files.shard_list import NAME, Entries, absent, entries_of

TIMEOUT_S = 60
"""Seconds without a byte after which an http server is given up; fsspec knows those of others."""

FORBIDDEN = 403

USER = re.compile(r"(://)[^/\s'\"]*@")
"""Name and password within a URL."""

QUERY = re.compile(r"(https?://[^\s?'\"]*\?)[^\s'\"]+")
"""The query of a URL: that of a presigned URL is a key."""


def is_url(path: str) -> bool:
    """Whether a path is a URL."""
    return "://" in path


def shown(text: str) -> str:
    """A text without the credentials in its URLs."""
    return QUERY.sub(r"\1***", USER.sub(r"\1***@", text))


def file_name(path: str) -> str:
    """The last part of a path or a URL, without the query and without a URL behind `::`."""
    if not is_url(path):
        return Path(path).name
    return posixpath.basename(_without_query(path).partition("::")[0].rstrip("/"))


def remote_matches(pattern: str, folders: bool) -> list[str]:
    """The URLs that a URL or a glob without braces names, sorted.

    Args:
        folders: it names folders that the package `datasets` saved, and not files.

    Raises:
        FileNotFoundError: there is none, or a file of the folder's `shards.json` is missing.
        BadData: the URL cannot be read.
    """
    with _told(pattern):
        files, path = _file_system(pattern)
        if not _is_glob(pattern):
            files.info(f"{path}/{STATE}" if folders else path)
            return [pattern]
        chain = "".join(pattern.partition("::")[1:])
        found = sorted(files.glob(f"{path}/{STATE}" if folders else path))
        urls = [files.unstrip_protocol(one).removesuffix(f"/{STATE}") + chain for one in found]
    if not urls:
        raise FileNotFoundError(f"no such file: {shown(pattern)}")
    names = {file_name(url) for url in urls}
    for folder in sorted({_folder(url) for url in urls if "::" not in url}):
        if lost := absent(remote_list(folder), file_name(pattern), names.__contains__):
            raise FileNotFoundError(f"{shown(folder)}/{lost[0]} is in {NAME} there, but missing")
    return urls


def listed_with(url: str) -> Entries:
    """The `shards.json` beside a file; empty where there is none.

    Raises:
        BadData: it is damaged, or cannot be read.
    """
    # A presigned URL is for one file alone.
    return {} if "?" in url or "::" in url else remote_list(_folder(url))


@cache
def remote_list(folder: str) -> Entries:
    """The `shards.json` of a folder; empty where there is none. Asked for once.

    Raises:
        BadData: it is damaged, or cannot be read.
    """
    place = f"{shown(folder)}/{NAME}"
    with _told(place):
        files, path = _file_system(folder)
        try:
            content = files.cat_file(f"{path}/{NAME}")
        # Who may not list a bucket is not told that a file is not there.
        except (FileNotFoundError, PermissionError):
            return {}
        except Exception as error:
            if getattr(error, "status", None) == FORBIDDEN:
                return {}
            raise
        return entries_of(content, place)


@contextmanager
def local_copy(url: str, folder: bool) -> Iterator[Path]:
    """Yield a copy of a file, which is removed afterwards.

    Tar archives and Parquet are read by seeking, which many servers do not offer.

    Args:
        folder: it is a folder that the package `datasets` saved.

    Raises:
        FileNotFoundError, BadData: it cannot be read.
    """
    with TemporaryDirectory(prefix="task_data_") as temporary:
        copy = Path(temporary) / file_name(url)
        with _told(url):
            files, path = _file_system(url)
            if folder:
                copy.mkdir()
                files.get_file(f"{path}/{STATE}", str(copy / STATE))
                for name in data_files(copy):
                    files.get_file(f"{path}/{name}", str(copy / name))
            else:
                files.get_file(path, str(copy))
        yield copy


def _file_system(url: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, and the path in it."""
    from fsspec.core import url_to_fs

    if not url.startswith(("http://", "https://")):
        return url_to_fs(url)
    from aiohttp import ClientTimeout

    # Its default would end every copy that takes more than five minutes.
    timeout = ClientTimeout(total=None, sock_connect=TIMEOUT_S, sock_read=TIMEOUT_S)
    return url_to_fs(url, client_kwargs={"timeout": timeout})


@contextmanager
def _told(url: str) -> Iterator[None]:
    """Errors of fsspec, and of what it reads by, as one line that names the URL."""
    try:
        yield
    except FileNotFoundError as error:
        # An http server that is gone is such an error as well; its cause says so.
        why = f" ({_one_line(error.__cause__)})" if error.__cause__ else ""
        raise FileNotFoundError(f"no such file: {shown(url)}{why}") from None
    except BadData:
        raise
    except ImportError as error:
        raise BadData(f"{shown(url)}: needs another package: {_one_line(error)}") from None
    # Each kind of file system has its own errors.
    except Exception as error:
        what = _one_line(error) or "no answer"
        kind = type(error).__name__
        raise BadData(f"{shown(url)}: cannot be read ({kind}: {what})") from None


def _one_line(error: BaseException) -> str:
    return shown(" ".join(str(error).split()))


def _is_glob(url: str) -> bool:
    return any(mark in _without_query(url) for mark in "*?[")


def _without_query(url: str) -> str:
    # In a URL of any other kind the mark stands for any character.
    return url.partition("?")[0] if url.startswith(("http://", "https://")) else url


def _folder(url: str) -> str:
    return url.rstrip("/").rpartition("/")[0]
