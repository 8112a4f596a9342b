"""Work is split over the ranks and comes back in order; errors are told by rank 0."""

import queue
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_trace.config import SettingError
from megatron_trace.policy import shared_work
from megatron_trace.policy.ranks import LeaderLost
from megatron_trace.policy.shared_work import SharedWork, even_parts

RANKS = 3


class Threads:
    """Stands for `torch.distributed` between threads, one of which is one rank."""

    def __init__(self) -> None:
        self.here = threading.local()
        self.sent = [queue.Queue[Any]() for _ in range(RANKS)]
        self.returned = [queue.Queue[Any]() for _ in range(RANKS)]

    def new_group(self, **settings: Any) -> None:
        pass

    def scatter_object_list(self, box: list[Any], everyone: Any, **named: Any) -> None:
        for place, part in zip(self.sent, everyone or (), strict=bool(everyone)):
            place.put(part)
        box[0] = self.sent[self.here.rank].get(timeout=10)
        if box[0] == "broken":
            raise RuntimeError("connection closed by peer")

    def gather_object(self, own: Any, everyone: list[Any] | None = None, **named: Any) -> None:
        self.returned[self.here.rank].put(own)
        if everyone is not None:
            everyone[:] = [place.get(timeout=10) for place in self.returned]


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Threads:
    fake = Threads()
    monkeypatch.setenv("WORLD_SIZE", str(RANKS))
    monkeypatch.setattr(shared_work, "distributed", fake)
    monkeypatch.setattr(shared_work, "join", lambda: None)
    return fake


@pytest.fixture
def followers(threads: Threads) -> list[Any]:
    """What the other ranks' `follow` returned or raised, once they have ended."""
    ended: list[Any] = []

    def follow(rank: int) -> None:
        threads.here.rank = rank
        try:
            ended.append(SharedWork().follow())
        except LeaderLost as error:
            ended.append(error)

    threads.here.rank = 0
    for rank in range(1, RANKS):
        threading.Thread(target=follow, args=(rank,), daemon=True).start()
    return ended


def wait_for(followers: list[Any]) -> list[Any]:
    for _ in range(1000):
        if len(followers) == RANKS - 1:
            break
        threading.Event().wait(0.01)
    return followers


@given(st.integers(0, 100), st.integers(1, 9))
def test_parts_are_even_and_hold_every_item_once(count: int, parts: int) -> None:
    items = list(range(count))
    split = [items[part] for part in even_parts(count, parts)]
    assert [item for part in split for item in part] == items and len(split) == parts
    assert max(map(len, split)) - min(map(len, split)) <= 1


def test_every_rank_does_a_part_and_the_results_keep_their_order(threads, followers) -> None:
    def squares(items: Sequence[int]) -> list[tuple[int, int]]:
        return [(item * item, threads.here.rank) for item in items]

    work = SharedWork()
    done = work.map(squares, list(range(7)))
    assert [square for square, _ in done] == [0, 1, 4, 9, 16, 25, 36]
    assert [rank for _, rank in done] == [0, 0, 1, 1, 2, 2, 2]
    assert work.map(squares, [2]) == [(4, 2)]
    work.end(go_on=False)
    assert wait_for(followers) == [False, False]


def test_an_error_of_any_rank_is_raised_by_rank_0_and_the_others_go_on(threads, followers) -> None:
    def fails(items: Sequence[int]) -> list[int]:
        if threads.here.rank == 1:
            raise SettingError("data.map", "x", "is wrong")
        if threads.here.rank == 2:
            raise OSError("no such disk")
        return list(items)

    work = SharedWork()
    with pytest.raises(SettingError, match=r"^data\.map = 'x': is wrong$"):
        work.map(fails, [1, 2, 3])
    with pytest.raises(RuntimeError, match="OSError: no such disk"):
        work.map(lambda items: fails(items) if threads.here.rank != 1 else list(items), [1, 2, 3])
    work.end(go_on=True)
    assert wait_for(followers) == [True, True]


def test_a_rank_whose_leader_died_says_so(threads, followers) -> None:
    for place in threads.sent[1:]:
        place.put("broken")
    assert [type(one) for one in wait_for(followers)] == [LeaderLost, LeaderLost]


def test_a_single_rank_does_all_itself(monkeypatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(shared_work, "join", None)
    work = SharedWork()
    assert work.map(lambda items: [item + 1 for item in items], [1, 2]) == [2, 3]
    work.end(go_on=True)
