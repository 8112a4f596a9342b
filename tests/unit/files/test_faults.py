"""Whatever happens at whichever call of a write: the old or the new is there, and the next write goes
through.
"""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from megatron_trace.compare.record import Record, read_record, write_record
from megatron_trace.data.tasks import write_shards
from megatron_trace.files.atomic import (
    leftovers,
    whole_file,
    whole_folder,
    write_bytes,
    write_text,
)
from megatron_trace.report.metrics_file import MetricsWriter, read_metrics
from megatron_trace.tree import save_trees
from tests.unit.faults import KINDS, Disk, FaultyFile, each_fault
from tests.unit.trees import bare_tree


def folder_of(path: Path, content: str) -> None:
    with whole_folder(path) as partial:
        (partial / "deep").mkdir()
        for name in ("a", "deep/b"):
            (partial / name).write_text(content)


def trees(path: Path, content: str) -> None:
    tree = bare_tree([0.0, 1.0])
    tree.task["content"] = content
    save_trees(path, [tree, tree])


def text_of(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def folder_text(path: Path) -> str:
    texts = {text_of(path / name) for name in ("a", "deep/b")}
    assert len(texts) == 1, "a part of a folder"
    return texts.pop()


def trees_text(path: Path) -> str:
    if not path.exists():
        return ""
    with gzip.open(path, "rt") as file:
        texts = {json.loads(line)["task"]["content"] for line in file}
    return texts.pop()


def record(path: Path, content: str) -> None:
    write_record(path.parent, Record("real", "x", 1, 0, settings={"content": content}))


def record_text(path: Path) -> str:
    file = path.parent / "x-b1-s0.json"
    return read_record(file).settings["content"] if file.exists() else ""


def shard(path: Path, content: str) -> None:
    write_shards([{"id": content}], str(path.parent / "shard-%d.tar"))


def shard_text(path: Path) -> str:
    file = path.parent / "shard-0.tar"
    if not file.exists():
        return ""
    data = file.read_bytes()
    return next(word for word in ("old", "new") if f'"{word}"'.encode() in data)


Write = Callable[[Path, str], Any]
WRITERS: dict[str, tuple[Write, Callable[[Path], str]]] = {
    "text": (write_text, text_of),
    "bytes": (lambda path, content: write_bytes(path, content.encode()), text_of),
    "folder": (folder_of, folder_text),
    "trees": (trees, trees_text),
    "record": (record, record_text),
    "shard": (shard, shard_text),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("old", [False, True])
def test_after_any_fault_the_old_or_the_new_is_there_and_the_next_write_goes_through(
    tmp_path: Path, name: str, kind: str, old: bool
) -> None:
    write, read = WRITERS[name]
    for number, fault in enumerate(each_fault(kind)):
        path = tmp_path / str(number) / "x"
        if old:
            write(path, "old")
        with fault():
            write(path, "new")
        # A folder that was killed between its two renames is there under another name until the
        # next writer comes.
        if not (name == "folder" and kind == "killed"):
            assert read(path) in ("new", "old" if old else "")
        write(path, "new")
        assert read(path) == "new"
        assert leftovers(path.parent) == []
    assert number > 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_that_is_replaced_is_never_lost(tmp_path: Path, kind: str) -> None:
    for number, fault in enumerate(each_fault(kind)):
        path = tmp_path / str(number) / "x"
        folder_of(path, "old")
        with fault():
            folder_of(path, "new")
        # The next writer fails in its block, so it leaves what it has found.
        with pytest.raises(KeyError), whole_folder(path):
            raise KeyError
        assert folder_text(path) in ("old", "new")
        assert [file.name for file in path.parent.iterdir()] == ["x"]


def test_what_a_user_has_beside_a_file_or_folder_is_never_touched(tmp_path: Path) -> None:
    theirs = ["x.partial", "x.retired", ".x.partial", "x.tmp", ".partial", "x~"]
    for name in theirs:
        (tmp_path / name).write_text("theirs")
    for _ in range(2):
        folder_of(tmp_path / "x", "ours")
        with whole_file(tmp_path / "y") as partial:
            partial.write_text("ours")
    assert {path.name for path in tmp_path.iterdir()} == {*theirs, "x", "y"}
    assert all((tmp_path / name).read_text() == "theirs" for name in theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_after_any_fault_all_finished_rows_of_metrics_are_there_once_and_whole(
    tmp_path: Path, kind: str
) -> None:
    for number, fault in enumerate(each_fault(kind)):
        folder = tmp_path / str(number)
        with MetricsWriter(folder) as writer:
            writer.write({"step": 0, "kl": 0.1})
            writer.write({"step": 5, "kl": 0.1})
        written = 0
        with fault():
            # Step 5 is done again, so its row is dropped.
            writer = MetricsWriter(folder, done=0)
            for step in (1, 2, 3):
                try:
                    writer.write({"step": step, "kl": 0.1})
                except OSError:
                    continue
                written = step
            writer.close()
        steps = [row["step"] for row in read_metrics(folder)]
        assert steps in ([0, 5], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0])
        assert not written or steps[-1] >= written
        with MetricsWriter(folder, done=3) as writer:
            writer.write({"step": 4})
        assert [row["step"] for row in read_metrics(folder) if row["step"] != 4] == [
            step for step in steps if step <= 3
        ]
        assert leftovers(folder) == []


def test_rows_that_a_full_disk_refuses_are_written_when_there_is_room(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path)
    writer.write({"step": 1})
    file = writer._file
    writer._file = FaultyFile(file, Disk(at=0, kind="full"))  # type: ignore[assignment]
    with pytest.raises(OSError, match="No space left"):
        writer.write({"step": 2})
    writer._file = file
    writer.write({"step": 3})
    writer.close()
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3]


def test_damaged_lines_of_metrics_are_left_out_and_told(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(b'{"step": 1}\n\0\0\0\n[1]\n{"kl": 2}\n\xff\n{"step": 2}\n{"st')
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2]
    writer = MetricsWriter(tmp_path, done=2)
    assert writer.take_events() == [f"4 damaged lines of {file} were removed"]
    writer.close()
    assert file.read_text() == '{"step": 1}\n{"step": 2}\n'
