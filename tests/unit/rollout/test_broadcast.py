"""Who is sent which version, and in which group."""

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from megatron_trace.rollout.broadcast import BroadcastSync

WEIGHTS: Any = object()


class Engine:
    """An actor that listens to the group it joined last."""

    def __init__(self) -> None:
        self.group: Group | None = None
        self.version: int | None = None
        self.sent: int | None = None
        self.finish_version = self.start_receiving = self

    def remote(self, version: int | None = None, fingerprint: int | None = None) -> "Engine":
        if version is not None:
            assert fingerprint == self.sent
            self.version = version
        return self

    def future(self) -> Future[None]:
        done: Future[None] = Future()
        done.set_result(None)
        return done


class Group:
    """Broadcasts fingerprints: 1, 2, ... over all groups."""

    sent = 0
    open = 0

    def __init__(self, workers: Sequence[Engine], weights: Any) -> None:
        assert weights is WEIGHTS
        self._workers = list(workers)
        Group.open += 1
        for worker in workers:
            worker.group = self

    def send(self) -> int:
        deaf = [worker for worker in self._workers if worker.group is not self]
        assert not deaf, "the sender would wait for ever"
        Group.sent += 1
        for worker in self._workers:
            worker.sent = Group.sent
        return Group.sent

    def close(self) -> None:
        Group.open -= 1


def test_the_same_workers_keep_their_group() -> None:
    a, b = Engine(), Engine()
    sync = BroadcastSync(Group)
    for version in (1, 2):
        sync.publish(WEIGHTS, version)
        sync.bring([a, b])
        if version == 1:
            group = a.group
    assert a.group is b.group is group
    assert (a.version, b.version) == (2, 2)


def test_after_a_restart_the_next_version_reaches_all_workers() -> None:
    a, b, restarted = Engine(), Engine(), Engine()
    sync = BroadcastSync(Group)
    sync.publish(WEIGHTS, 1)
    sync.bring([a, b])
    sync.bring([restarted])
    assert restarted.version == 1
    for version in (2, 3):
        sync.publish(WEIGHTS, version)
        sync.bring([a, restarted])
        assert (a.version, restarted.version) == (version, version)


def test_a_group_is_left_open_until_the_next_version_while_others_sample() -> None:
    Group.open = 0
    sync = BroadcastSync(Group)
    sync.publish(WEIGHTS, 1)
    for _ in range(3):
        sync.bring([Engine()])
    assert Group.open == 3
    sync.publish(WEIGHTS, 2)
    assert Group.open == 1


def test_nobody_to_bring_forms_no_group() -> None:
    Group.open = 0
    sync = BroadcastSync(Group)
    sync.publish(WEIGHTS, 1)
    assert sync.bring([]) == [] and Group.open == 0
