"""A file or a folder is there whole or not at all, whatever was left by a writer that was killed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from megatron_trace.files import atomic
from megatron_trace.files.atomic import (
    RETIRED,
    partial_path,
    publish,
    remove,
    whole_file,
    whole_folder,
    write_bytes,
    write_text,
)


class Killed(BaseException):
    """Neither an Exception nor expected by anybody, as a signal's."""


def leave_file(partial: Path) -> None:
    partial.write_text("half")


def leave_folder(partial: Path) -> None:
    (partial / "deep").mkdir(parents=True)
    (partial / "deep" / "file").write_text("half")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("leave", [None, leave_file, leave_folder])
def test_a_file_is_written_whatever_was_left_under_the_partials_name(tmp_path, leave) -> None:
    path = tmp_path / "new" / "file.txt"
    if leave is not None:
        path.parent.mkdir()
        leave(partial_path(path))
    assert write_text(path, "Où ?\n") == path
    assert path.read_bytes() == "Où ?\n".encode()
    assert write_bytes(path, b"again").read_bytes() == b"again"
    assert names(path.parent) == {"file.txt"}


@pytest.mark.parametrize("leave", [None, leave_file, leave_folder])
def test_a_folder_is_written_whatever_was_left_under_the_partials_name(tmp_path, leave) -> None:
    path = tmp_path / "folder"
    if leave is not None:
        leave(partial_path(path))
    for content in ("first", "second"):
        with whole_folder(path) as partial:
            assert list(partial.iterdir()) == []
            (partial / content).touch()
        assert names(path) == {content}
    assert names(tmp_path) == {"folder"}


@pytest.mark.parametrize("old", [False, True])
def test_a_writer_that_fails_leaves_what_was_there_and_nothing_else(tmp_path, old) -> None:
    file, folder = tmp_path / "file", tmp_path / "folder"
    if old:
        write_text(file, "old")
        folder.mkdir()
        (folder / "old").touch()
    with pytest.raises(Killed), whole_file(file) as partial:
        partial.write_text("new")
        raise Killed
    with pytest.raises(Killed), whole_folder(folder) as partial:
        (partial / "new").touch()
        raise Killed
    assert names(tmp_path) == ({"file", "folder"} if old else set())
    if old:
        assert file.read_text() == "old"
        assert names(folder) == {"old"}


@pytest.mark.parametrize("what", ["fsync", "replace"])
def test_a_disk_that_fails_between_the_content_and_its_name_costs_only_the_new(
    tmp_path, monkeypatch, what
) -> None:
    file, folder = tmp_path / "file", tmp_path / "folder"
    write_text(file, "old")
    with whole_folder(folder) as partial:
        (partial / "old").touch()

    def fail(*arguments: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(*((os, "fsync") if what == "fsync" else (Path, "replace")), fail)
    with pytest.raises(OSError, match="No space left"):
        write_text(file, "new")
    with pytest.raises(OSError, match="No space left"), whole_folder(folder) as partial:
        (partial / "new").touch()
    assert names(tmp_path) == {"file", "folder"}
    assert file.read_text() == "old"
    assert names(folder) == {"old"}


@pytest.mark.parametrize("write", ["write_text(path, 'new')", "write_folder(path)"])
def test_a_process_that_is_killed_before_the_rename_leaves_the_old_and_the_next_goes_through(
    tmp_path: Path, write: str
) -> None:
    program = f"""
import os, signal, sys
from pathlib import Path
from megatron_trace.files.atomic import whole_folder, write_text

def write_folder(path):
    with whole_folder(path) as partial:
        (partial / "new").touch()

path = Path(sys.argv[1])
os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
{write}
"""
    path = tmp_path / "it"
    if "folder" in write:
        path.mkdir()
        (path / "old").touch()
    else:
        path.write_text("old")
    assert subprocess.run([sys.executable, "-c", program, str(path)]).returncode < 0
    assert names(tmp_path) >= {partial_path(path).name}
    if "folder" in write:
        with whole_folder(path) as partial:
            assert names(path) == {"old"}
            (partial / "new").touch()
        assert names(path) == {"new"}
    else:
        assert path.read_text() == "old"
        assert write_text(path, "new").read_text() == "new"
    assert names(tmp_path) == {"it"}


def test_an_old_folder_that_only_its_retired_name_keeps_comes_back(tmp_path: Path) -> None:
    path, retired = tmp_path / "folder", tmp_path / f".folder{RETIRED}"
    retired.mkdir()
    (retired / "old").touch()
    with pytest.raises(Killed), whole_folder(path):
        assert names(path) == {"old"}
        raise Killed
    assert names(tmp_path) == {"folder"}


def test_content_and_names_are_on_the_disk_before_and_after_the_rename(
    tmp_path, monkeypatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr(atomic, "sync", lambda path: done.append(path.name))
    replace = Path.replace

    def recorded(self: Path, target: Path) -> Path:
        done.append("rename")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", recorded)
    write_text(tmp_path / "file", "")
    assert done == [partial_path(Path("file")).name, "rename", tmp_path.name]
    done.clear()
    partial = partial_path(tmp_path / "folder")
    (partial / "sub").mkdir(parents=True)
    (partial / "sub" / "file").touch()
    publish(tmp_path / "folder")
    assert sorted(done[:3]) == sorted(["file", partial.name, "sub"])
    assert done[3:] == ["rename", tmp_path.name]


def test_to_remove_what_is_not_there_is_no_error(tmp_path: Path) -> None:
    remove(tmp_path / "nothing")
    (tmp_path / "link").symlink_to(tmp_path)
    remove(tmp_path / "link")
    assert tmp_path.is_dir() and not list(tmp_path.iterdir())


def test_a_rename_whose_answer_is_lost_counts_as_done(tmp_path, monkeypatch) -> None:
    real = Path.replace

    def replace(path: Path, target: Path) -> None:
        real(path, target)
        raise OSError(5, "the server did not answer")

    monkeypatch.setattr(Path, "replace", replace)
    assert write_text(tmp_path / "a", "new").read_text() == "new"
