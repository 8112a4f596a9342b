"""Task shards: what is written is read, bytes repeat, and the stream resumes from a number."""

from itertools import islice

import pytest

from megatron_trace.data.tasks import load_tasks, task_stream, write_shards

ROWS = [
    {"id": str(n), "question": f"Où est {n} ?", "answers": ["a", "b"], "hops": 1} for n in range(25)
]


def test_rows_come_back_in_order(tmp_path) -> None:
    paths = write_shards(ROWS, str(tmp_path / "train-%06d.tar"), rows_per_shard=10)
    assert [path.name for path in paths] == [f"train-{n:06d}.tar" for n in range(3)]
    assert sorted(tmp_path.iterdir()) == [tmp_path / "shards.json", *paths]
    assert load_tasks(str(tmp_path / "train-*.tar")) == ROWS
    assert load_tasks(str(tmp_path / "train-{000000..000001}.tar")) == ROWS[:20]


def test_same_rows_same_bytes(tmp_path) -> None:
    first = write_shards(ROWS, str(tmp_path / "a-%d.tar"))
    second = write_shards([dict(reversed(row.items())) for row in ROWS], str(tmp_path / "b-%d.tar"))
    assert first[0].read_bytes() == second[0].read_bytes()


def test_no_shard_is_an_error_that_names_the_pattern(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none-\*\.tar"):
        load_tasks(str(tmp_path / "none-*.tar"))


@pytest.mark.parametrize("start", [0, 1, 24, 25, 60])
def test_a_stream_resumes_from_its_position(start) -> None:
    whole = list(islice(task_stream(ROWS, seed=3), 90))
    assert list(islice(task_stream(ROWS, seed=3, start=start), 90 - start)) == whole[start:]


def test_every_epoch_has_every_task_once_in_an_order_of_its_own() -> None:
    ids = [task["id"] for task in islice(task_stream(ROWS, seed=3), 50)]
    assert sorted(ids[:25]) == sorted(ids[25:]) == sorted(row["id"] for row in ROWS)
    assert ids[:25] != ids[25:]
    assert ids[:25] != [task["id"] for task in islice(task_stream(ROWS, seed=4), 25)]


def test_an_empty_stream_is_an_error() -> None:
    with pytest.raises(ValueError, match="0 tasks"):
        next(task_stream([], seed=0))


def test_every_rank_of_torchrun_may_read_all_tasks(tmp_path, monkeypatch) -> None:
    write_shards([{"id": "a"}, {"id": "b"}], str(tmp_path / "tasks-%06d.tar"))
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert [task["id"] for task in load_tasks(str(tmp_path / "tasks-*.tar"))] == ["a", "b"]
