"""Files behind URLs: as local ones, and with the URL in every message but for its credentials."""

import gzip
import json
import socket
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.registry import known_implementations

from megatron_trace.data.task_rows import task_rows
from megatron_trace.data.tasks import write_shards
from megatron_trace.files import remote
from megatron_trace.files.problems import BadData
from megatron_trace.files.remote import file_name, shown
from megatron_trace.files.rows import read_rows
from tests.unit.files.test_saved_dataset import save

ROWS = [{"id": f"t{number}", "q": "Où ?"} for number in range(5)]


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[Path]:
    """A local folder; `publish` copies it to memory://bucket."""
    remote.remote_list.cache_clear()
    yield tmp_path
    fsspec.filesystem("memory").rm("/", recursive=True)


def publish(folder: Path) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            path = f"/bucket/{file.relative_to(folder)}"
            fsspec.filesystem("memory").pipe_file(path, file.read_bytes())


def read(pattern: str) -> tuple[list[dict[str, Any]], list[str]]:
    problems: list[str] = []
    return [row.content for row in task_rows(pattern, problems)], problems


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """An HTTP server of a folder that, like many, can send only whole files."""
    remote.remote_list.cache_clear()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            pass

    handler = partial(Quiet, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def write_all_kinds(folder: Path) -> None:
    write_shards(ROWS, str(folder / "train-%d.tar"), rows_per_shard=2)
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    (folder / "a.jsonl").write_text(lines)
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "a.parquet")
    save(folder / "saved", pa.Table.from_pylist(ROWS))


KINDS = ["train-{0..2}.tar", "a.jsonl", "a.jsonl.gz", "a.parquet", "saved", "saved/"]


@pytest.mark.parametrize("name", [*KINDS, "train-*.tar", "*.parquet", "sav*"])
def test_every_kind_is_read_from_a_bucket(bucket, name) -> None:
    write_all_kinds(bucket)
    publish(bucket)
    assert read(f"memory://bucket/{name}") == (ROWS, [])


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_read_from_a_server_that_cannot_seek(tmp_path, server, name) -> None:
    write_all_kinds(tmp_path)
    assert read(f"{server}/{name}") == (ROWS, [])


def test_rows_are_named_after_the_file_and_not_the_query(tmp_path, server) -> None:
    (tmp_path / "a.jsonl").write_text('{"q": 1}\n\n{"q": \n')
    tasks, (problem,) = read(f"{server}/a.jsonl?X-Amz-Signature=secret")
    assert tasks == [{"id": "a-1", "q": 1}]
    assert problem.startswith(f"{server}/a.jsonl?***: line 3: is not JSON")


def test_a_file_in_an_archive_is_read(bucket) -> None:
    with ZipFile(bucket / "all.zip", "w") as archive:
        for row in ROWS:
            archive.writestr(f"{row['id']}.jsonl", json.dumps(row))
    assert read(f"zip://*.jsonl::file://{bucket}/all.zip") == (ROWS, [])
    assert read(f"zip://t1.jsonl::file://{bucket}/all.zip") == (ROWS[1:2], [])


def test_a_missing_file_is_one_line(bucket, server) -> None:
    write_shards(ROWS, str(bucket / "train-%d.tar"), rows_per_shard=2)
    publish(bucket)
    for url in ("memory://bucket/b.jsonl", "memory://bucket/b-*.tar", f"{server}/b.jsonl"):
        with pytest.raises(FileNotFoundError) as error:
            read(url)
        assert str(error.value).startswith(f"no such file: {url}")
    with pytest.raises(FileNotFoundError, match=r"^no such file: memory://bucket/folder$"):
        read("memory://bucket/folder")
    fsspec.filesystem("memory").rm("/bucket/train-1.tar")
    with pytest.raises(
        FileNotFoundError, match=r"^memory:///bucket/train-1\.tar is in shards\.json"
    ):
        read("memory://bucket/train-*.tar")


def test_a_shard_that_is_not_as_listed_is_told(bucket) -> None:
    write_shards(ROWS, str(bucket / "train-%d.tar"))
    data = bytearray((bucket / "train-0.tar").read_bytes())
    data[data.index(b"t3")] ^= 1
    (bucket / "train-0.tar").write_bytes(data)
    publish(bucket)
    _, (problem, *_) = read("memory://bucket/train-*.tar")
    assert problem.startswith("memory:///bucket/train-0.tar: has not the SHA-256 in shards.json")


def test_a_damaged_file_is_named_by_its_url(bucket) -> None:
    write_all_kinds(bucket)
    for name in ("a.jsonl.gz", "a.parquet", "saved/data-9.arrow"):
        (bucket / name).write_bytes((bucket / name).read_bytes()[:-20])
        fsspec.filesystem("memory").pipe_file(f"/bucket/{name}", (bucket / name).read_bytes())
    publish(bucket)
    for name in ("a.jsonl.gz", "a.parquet", "saved"):
        problems: list[str] = []
        list(read_rows(f"memory://bucket/{name}", problems))
        assert len(problems) == 1 and problems[0].startswith(f"memory://bucket/{name}"), problems


def test_a_protocol_without_its_package_says_what_to_install(monkeypatch) -> None:
    remedy = "Install nopkg to access it"
    known = {"class": "no_such_package.FS", "err": remedy}
    monkeypatch.setitem(known_implementations, "nopkg", known)
    with pytest.raises(BadData) as error:
        read("nopkg://user:word@bucket/a.jsonl")
    assert str(error.value) == f"nopkg://***@bucket/a.jsonl: needs another package: {remedy}"
    with pytest.raises(
        BadData, match=r"^nothing://a\.jsonl: cannot be read \(ValueError: Protocol"
    ):
        read("nothing://a.jsonl")


def test_a_server_that_is_gone_or_silent_is_one_line(monkeypatch) -> None:
    with pytest.raises(FileNotFoundError) as error:
        read("http://me:word@127.0.0.1:9/a.jsonl")
    said = str(error.value)
    assert said.startswith("no such file: http://***@127.0.0.1:9/a.jsonl (Cannot connect")
    monkeypatch.setattr(remote, "TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/a.jsonl"
        with pytest.raises((BadData, FileNotFoundError), match=rf"{url}.*imeout"):
            read(url)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("https://me:w@rd@h/a?sig=x: bad", "https://***@h/a?*** bad"),
        ("s3://bucket/a-?.tar", "s3://bucket/a-?.tar"),
        ("hf://datasets/me/set@main/a.jsonl", "hf://datasets/me/set@main/a.jsonl"),
        ("a@b.tar", "a@b.tar"),
    ],
)
def test_credentials_are_not_shown(text, wanted) -> None:
    assert shown(text) == wanted


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("https://h/x/a.jsonl?b=c/d", "a.jsonl"),
        ("zip://in/a.tar::s3://b/c.zip", "a.tar"),
        ("s3://b/folder/", "folder"),
        ("a/b?.tar", "b?.tar"),
    ],
)
def test_the_name_of_a_file(path, name) -> None:
    assert file_name(path) == name
