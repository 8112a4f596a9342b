"""Shards from published files: duplicates go, contamination is told, and the manifest says whence."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from megatron_trace.data.tasks import load_tasks

MAP = """
def to_task(row):
    return {"question": row["q"], "answers": [row["a"]]} if row["a"] else None
"""


@pytest.fixture
def tool(load_tool):
    return load_tool("build_shards")


@pytest.fixture
def build(tool, tmp_path, monkeypatch):
    def run(*options: str) -> None:
        out = ["--out", f"{tmp_path}/out/train-%06d.tar"]
        monkeypatch.setattr(sys, "argv", ["build_shards.py", *out, *options])
        tool.main()

    return run


def write(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "out" / "manifest.json").read_text())


def test_a_published_file_becomes_shards_of_tasks(tmp_path, build) -> None:
    source = write(tmp_path / "qa.jsonl", *({"q": f"{n} ?", "a": str(n or "")} for n in range(5)))
    (tmp_path / "mine.py").write_text(MAP)
    build("--source", source, "--map", f"{tmp_path}/mine.py:to_task", "--rows-per-shard", "3")
    wanted = [{"id": f"qa-{n + 1}", "question": f"{n} ?", "answers": [str(n)]} for n in range(1, 5)]
    assert load_tasks(f"{tmp_path}/out/train-*.tar") == wanted
    listed = json.loads((tmp_path / "out" / "shards.json").read_text())
    assert set(listed) == {"train-000000.tar", "train-000001.tar"}
    assert manifest(tmp_path)["train"] == {
        "source": source, "map": f"{tmp_path}/mine.py:to_task", "heldout": None, "count": 4,
        "duplicates": 0, "contaminated": [], "shards": listed,
    }  # fmt: skip


def test_rows_of_the_same_content_are_written_once(tmp_path, build, capsys) -> None:
    rows = [{"id": 1, "q": "a"}, {"q": "a", "id": 2}, {"id": 1, "q": "a"}, {"id": 3, "q": "b"}]
    build("--source", write(tmp_path / "qa.jsonl", *rows))
    assert load_tasks(f"{tmp_path}/out/train-*.tar") == [{"id": 1, "q": "a"}, {"id": 3, "q": "b"}]
    assert capsys.readouterr().out == "2 rows in 1 shards; 2 duplicates dropped\n"
    assert manifest(tmp_path)["train"]["duplicates"] == 2


def test_what_is_held_out_too_is_told_and_written(tmp_path, build, capsys) -> None:
    source = write(
        tmp_path / "qa.jsonl",
        {"id": "same", "text": "x"},
        {"id": "words", "question": "Where,  is LYON?", "answers": []},
        {"id": "chat", "prompt": [{"role": "user", "content": "Why is it so?"}]},
        {"id": "other", "question": "Where is Paris ?"},
        {"id": "empty", "question": "?!"},
    )
    held = write(
        tmp_path / "held.jsonl",
        {"id": "h0", "text": "x"},
        {"question": "where is Lyon ?", "answers": ["France"]},
        {"prompt": "Why is it so"},
        {"question": "…"},
    )
    build("--source", source, "--heldout", held, "--split", "test")
    assert manifest(tmp_path)["test"]["contaminated"] == ["same", "words", "chat"]
    said = capsys.readouterr().out.splitlines()
    assert said[1] == f"3 rows are in {held} too"
    assert said[3] == f"{source}: line 2 is held out too: {held}: line 2"
    assert len(load_tasks(f"{tmp_path}/out/train-*.tar")) == 5


def test_the_manifest_keeps_the_other_splits(tmp_path, build) -> None:
    source = write(tmp_path / "qa.jsonl", {"q": 1})
    build("--source", source)
    build("--source", source, "--split", "test", "--out", f"{tmp_path}/out/test-%03d.tar")
    assert set(manifest(tmp_path)) == {"train", "test"}
    assert set(manifest(tmp_path)["test"]["shards"]) == {"test-000.tar"}


def test_shards_are_a_source_too_and_same_rows_give_the_same_bytes(tmp_path, build) -> None:
    build("--source", write(tmp_path / "qa.jsonl", {"q": 1}, {"q": 2}))
    again = f"{tmp_path}/again/train-%06d.tar"
    build("--source", f"{tmp_path}/out/train-*.tar", "--out", again)
    first, second = (tmp_path / name / "train-000000.tar" for name in ("out", "again"))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--source", "gone.jsonl"], "no such file: gone.jsonl"),
        (["--source", "{bad}"], "bad.jsonl: line 2: is not JSON"),
        (["--source", "{twice}"], "twice.jsonl: line 2: its id 1 is that of "),
        (["--source", "{good}", "--map", "gone.py:f"], "--map = 'gone.py:f': no such file"),
        (["--source", "{good}", "--map", "{map}"], "--map fails: mine.py: line 3: KeyError: 'a'"),
        (["--source", "{none}", "--map", "{map}"], "none.jsonl: --map leaves out every row"),
        (["--source", "{good}", "--heldout", "{bad}"], "bad.jsonl: line 2: is not JSON"),
        (["--source", "{good}", "--out", "train.tar"], "--out train.tar: must hold one %06d"),
        (["--source", "{good}", "--out", "a-%d-%d.tar"], "must hold one %06d"),
        (["--source", "{good}", "--out", "a-%d.jsonl"], "and end with .tar"),
        (["--source", "{good}", "--rows-per-shard", "0"], "--rows-per-shard 0: must be at least 1"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_writes_nothing(
    tmp_path, build, capsys, options, said
) -> None:
    (tmp_path / "mine.py").write_text(MAP)
    (tmp_path / "bad.jsonl").write_text("{}\n{\n")
    names = {
        "good": write(tmp_path / "good.jsonl", {"q": 1}),
        "none": write(tmp_path / "none.jsonl", {"a": ""}),
        "twice": write(tmp_path / "twice.jsonl", {"id": 1, "q": 1}, {"id": 1, "q": 2}),
        "bad": f"{tmp_path}/bad.jsonl",
        "map": f"{tmp_path}/mine.py:to_task",
    }
    with pytest.raises(SystemExit):
        build(*(option.format(**names) for option in options))
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_shards_of_a_longer_writing_and_a_damaged_manifest_are_refused(
    tmp_path, build, capsys
) -> None:
    source = write(tmp_path / "qa.jsonl", {"q": 1}, {"q": 2})
    build("--source", source, "--rows-per-shard", "1")
    build("--source", source, "--rows-per-shard", "1")
    with pytest.raises(SystemExit):
        build("--source", source)
    assert "train-000001.tar is of an earlier writing; remove it" in capsys.readouterr().err
    (tmp_path / "out" / "manifest.json").write_text("{")
    with pytest.raises(SystemExit):
        build("--source", source)
    assert "manifest.json: is not JSON" in capsys.readouterr().err
