"""Workers that die at any moment of runs whose weights are broadcast: the real pool and the real
`BroadcastSync` on actors of a few lines.
"""

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st
from ray.exceptions import RayActorError

from megatron_trace.rollout.broadcast import BroadcastSync
from megatron_trace.rollout.engine import EngineDied
from megatron_trace.rollout.jobs import Job
from megatron_trace.rollout.pool import WorkerPool

WEIGHTS: Any = object()
MOMENTS = ("sample", "ping", "join_trainer", "start_receiving", "finish_version")


class Call:
    """A call of an actor, and the reference to its result. It ends when `World.answer` says so."""

    def __init__(self, actor: "Actor", method: str, arguments: tuple[Any, ...]) -> None:
        self.actor, self.method, self.arguments = actor, method, arguments
        self._future: Future[Any] = Future()

    def future(self) -> Future[Any]:
        if not self._future.done() and self.method not in self.actor.world.held:
            self.end()
        return self._future

    def end(self) -> None:
        try:
            self._future.set_result(self.actor.serve(self.method, self.arguments))
        except (RayActorError, EngineDied) as error:
            self._future.set_exception(error)


class World:
    """All actors that were ever made.

    Attributes:
        deaths: method -> how many of its next calls kill their actor.
        held: methods whose calls do not end by themselves; `waiting` holds those calls.
    """

    def __init__(self) -> None:
        self.actors: list[Actor] = []
        self.deaths = dict.fromkeys(MOMENTS, 0)
        self.held: set[str] = set()
        self.waiting: list[Call] = []
        self.sampled: list[int] = []
        self.group: Group | None = None

    def create(self) -> "Actor":
        self.actors.append(Actor(self))
        return self.actors[-1]

    def release(self) -> None:
        """Let all held calls end."""
        self.held.clear()
        for call in self.waiting:
            call.end()
        self.waiting.clear()


class Actor:
    """A worker with its engine. An engine listens to the group that it joined last."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.alive, self.receiving = True, False
        self.group: Group | None = None
        self.sent, self.version = 0, 0

    def __getattr__(self, method: str) -> Any:
        return Method(self, method)

    def serve(self, method: str, arguments: tuple[Any, ...]) -> Any:
        if self.alive and self.world.deaths.get(method):
            self.world.deaths[method] -= 1
            self.alive = False
        if not self.alive:
            raise EngineDied("its engine died") if len(self.world.actors) % 2 else RayActorError()
        return getattr(self, f"_{method}")(*arguments)

    def _start(self) -> dict[str, float]:
        return {}

    def _ping(self) -> None: ...

    def _sample(self, number: int) -> int:
        self.world.sampled.append(self.version)
        return number

    def _start_receiving(self) -> None:
        self.receiving = True

    def _finish_version(self, version: int, fingerprint: int) -> None:
        assert fingerprint == self.sent
        self.version = version


class Method:
    def __init__(self, actor: Actor, name: str) -> None:
        self._actor, self._name = actor, name

    def remote(self, *arguments: Any) -> Call:
        call = Call(self._actor, self._name, arguments)
        if self._name in self._actor.world.held:
            self._actor.world.waiting.append(call)
        return call


class Sampler:
    """What the jobs call; `Actor` stands for its actors."""

    async def sample(self, number: int) -> int: ...


class Group:
    """As NCCL's, but an assertion fails where NCCL would wait for ever."""

    def __init__(self, world: World, actors: Sequence[Actor]) -> None:
        self._actors = list(actors)
        for actor in actors:
            assert actor.alive, "a dead engine never joins"
            actor.group = self

    def send(self) -> int:
        for actor in self._actors:
            assert actor.alive and actor.receiving, "a dead engine receives nothing"
            assert actor.group is self, "the engine listens to another group"
        fingerprint = id(self) ^ len(self._actors)
        for actor in self._actors:
            actor.sent, actor.receiving = fingerprint, False
        return fingerprint

    def close(self) -> None: ...


def make_pool(world: World, size: int = 2, max_restarts: int = 99) -> WorkerPool:
    sync = BroadcastSync(lambda actors, weights: Group(world, actors))
    return WorkerPool(
        world.create, size, concurrency=2, max_restarts=max_restarts, weight_sync=sync
    )


def sample(pool: WorkerPool, world: World, version: int, count: int = 3) -> None:
    """Sample, and see that all of it is of `version`."""
    world.sampled.clear()
    jobs = [Job(Sampler.sample, number) for number in range(count)]
    assert pool.run(jobs) == list(range(count))
    assert set(world.sampled) == {version}


@pytest.fixture(autouse=True)
def killing(monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(actor: Actor) -> None:
        actor.alive = False

    monkeypatch.setattr(ray, "kill", kill)


def test_a_worker_whose_restart_outlasts_the_step_is_in_every_later_group() -> None:
    world = World()
    pool = make_pool(world)
    pool.wait()
    pool.update_weights(WEIGHTS, 1)
    world.deaths["sample"], world.held = 1, {"start"}
    sample(pool, world, 1)
    # The next version is sent while the worker is still starting.
    pool.update_weights(WEIGHTS, 2)
    world.release()
    sample(pool, world, 2)
    pool.wait()
    for version in (3, 4):
        pool.update_weights(WEIGHTS, version)
        sample(pool, world, version)
    assert pool.deaths == 1 and {slot.actor.version for slot in pool.slots} == {4}


@pytest.mark.parametrize("moment", ["ping", "start_receiving", "finish_version"])
@pytest.mark.parametrize("dead", [1, 2])
def test_a_death_while_nobody_samples_costs_a_restart(moment: str, dead: int) -> None:
    world = World()
    pool = make_pool(world)
    pool.wait()
    pool.update_weights(WEIGHTS, 1)
    world.deaths[moment] = dead
    pool.update_weights(WEIGHTS, 2)
    sample(pool, world, 2)
    pool.wait()
    assert pool.deaths == dead and {slot.actor.version for slot in pool.slots} == {2}


def test_a_death_in_the_middle_of_a_broadcast_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def send(group: Group) -> int:
        raise RayActorError()

    monkeypatch.setattr(Group, "send", send)
    pool = make_pool(World())
    pool.wait()
    with pytest.raises(RuntimeError, match="died while weights were broadcast"):
        pool.update_weights(WEIGHTS, 1)


Moments = st.lists(st.sampled_from([moment for moment in MOMENTS if moment != "join_trainer"]))


@given(st.lists(st.tuples(Moments, Moments, st.booleans()), max_size=6), st.integers(1, 3))
def test_whoever_dies_and_whenever_all_samples_are_of_the_newest_version(
    steps: list[tuple[list[str], list[str], bool]], size: int
) -> None:
    patch = pytest.MonkeyPatch()
    patch.setattr(ray, "kill", lambda actor: setattr(actor, "alive", False))
    world = World()
    pool = make_pool(world, size)
    pool.wait()
    for version, (before_update, before_sampling, slow) in enumerate(steps, 1):
        # Two deaths in the moments between pinging and sending are not survived.
        world.deaths = {moment: before_update.count(moment) for moment in MOMENTS}
        world.deaths["start_receiving"] = min(1, world.deaths["start_receiving"])
        pool.update_weights(WEIGHTS, version)
        if slow and any(slot.ready for slot in pool.slots):
            world.held = {"start"}
        world.deaths = dict.fromkeys(MOMENTS, 0)
        world.deaths["sample"] = min(before_sampling.count("sample"), size - 1)
        sample(pool, world, version)
        world.release()
    patch.undo()
