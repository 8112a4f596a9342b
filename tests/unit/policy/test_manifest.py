"""A checkpoint's manifest notices every change to its files."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_trace.policy.manifest import (
    DamagedCheckpoint,
    note_checksums,
    verify,
    write_manifest,
    written_checksums,
)


def make(folder: Path) -> Path:
    (folder / "hf").mkdir(parents=True)
    (folder / "__0_0.distcp").write_bytes(bytes(range(256)) * 40)
    (folder / ".metadata").write_bytes(b"m" * 99)
    (folder / "hf" / "config.json").write_text("{}")
    write_manifest(folder)
    return folder


def test_what_was_written_is_whole(tmp_path: Path) -> None:
    verify(make(tmp_path / "c"))


@settings(max_examples=25, deadline=None)
@given(position=st.integers(0, 256 * 40 - 1), change=st.integers(1, 255))
def test_one_changed_byte_is_noticed(tmp_path_factory, position: int, change: int) -> None:
    folder = make(tmp_path_factory.mktemp("c") / "c")
    file = folder / "__0_0.distcp"
    data = bytearray(file.read_bytes())
    data[position] ^= change
    file.write_bytes(data)
    with pytest.raises(DamagedCheckpoint, match=r"__0_0\.distcp is damaged"):
        verify(folder)


@pytest.mark.parametrize("name", ["__0_0.distcp", ".metadata", "hf/config.json"])
def test_a_truncated_or_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = make(tmp_path / "c")
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:-1])
    with pytest.raises(DamagedCheckpoint, match=name):
        verify(folder)
    (folder / name).unlink()
    with pytest.raises(DamagedCheckpoint, match=f"{name} cannot be read"):
        verify(folder)


@pytest.mark.parametrize("content", [None, "", "{", "[]"])
def test_without_a_readable_manifest_it_is_no_checkpoint(
    tmp_path: Path, content: str | None
) -> None:
    folder = make(tmp_path / "c")
    (folder / "manifest.json").unlink()
    if content is not None:
        (folder / "manifest.json").write_text(content)
    with pytest.raises(DamagedCheckpoint, match="no complete checkpoint"):
        verify(folder)


def test_ranks_share_the_reading_and_together_see_every_file(tmp_path: Path) -> None:
    folder = make(tmp_path / "c")
    (folder / ".metadata").write_bytes(b"other")
    seen = []
    for part in range(3):
        try:
            verify(folder, part, 3)
        except DamagedCheckpoint:
            seen.append(part)
    assert len(seen) == 1


def test_checksums_of_the_writers_are_taken_over_and_their_notes_removed(tmp_path: Path) -> None:
    (tmp_path / "__1_0.distcp").write_bytes(b"data")
    note_checksums(tmp_path, 1, [tmp_path / "__1_0.distcp"])
    known = written_checksums(tmp_path)
    assert list(known) == ["__1_0.distcp"]
    write_manifest(tmp_path, known)
    assert {path.name for path in tmp_path.iterdir()} == {"__1_0.distcp", "manifest.json"}
    verify(tmp_path)
