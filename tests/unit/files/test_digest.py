"""The digest of files: their content, wherever they lie."""

from pathlib import Path

from megatron_trace.files import digest
from megatron_trace.files.digest import content_digest


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_every_byte_of_a_small_file_counts_and_its_name_does_not(tmp_path) -> None:
    content = bytes(range(256))
    first = content_digest([write(tmp_path / "a", content)])
    assert first == content_digest([write(tmp_path / "b", content)])
    for place in range(256):
        changed = content[:place] + b"!!" + content[place + 2 :]
        assert content_digest([write(tmp_path / "c", changed)]) != first


def test_files_do_not_run_into_each_other(tmp_path) -> None:
    a, ab, b, empty = (write(tmp_path / name, name.encode()) for name in ("a", "ab", "b", "e"))
    write(empty, b"")
    assert len({content_digest(files) for files in ([a, b], [ab], [ab, empty], [b, a])}) == 4


def test_of_a_large_file_size_beginning_end_and_spaced_pieces_count(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(digest, "PIECE_BYTES", 4)
    monkeypatch.setattr(digest, "PIECES", 4)
    content = b"a" * 100
    first = content_digest([write(tmp_path / "a", content)])
    noticed = []
    for place in range(100):
        changed = content[:place] + b"b" + content[place + 1 :]
        if content_digest([write(tmp_path / "a", changed)]) != first:
            noticed.append(place)
    assert noticed == [*range(4), *range(32, 36), *range(64, 68), *range(96, 100)]
    assert content_digest([write(tmp_path / "a", content + b"a")]) != first
