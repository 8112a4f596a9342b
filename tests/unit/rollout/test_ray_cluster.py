"""Joining a Ray that was started elsewhere: its GPUs, its token, and the folder of its actors."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from ray._private import ray_constants
from ray._private.services import get_node_ip_address

from megatron_trace.config import Config, SettingError, WeightBackend
from megatron_trace.rollout import ray_cluster
from megatron_trace.rollout.ray_cluster import has_gpus, join_ray, loopback_only, own_token
from megatron_trace.rollout.worker import enter


class Ray:
    """Ray's count of GPUs at each look, and a clock that only sleeping advances."""

    def __init__(self, patch: pytest.MonkeyPatch, counts: list[int], cuda: bool) -> None:
        self.seconds = 0.0
        self._counts = counts
        patch.setattr(ray, "cluster_resources", self._resources)
        patch.setattr(torch.cuda, "is_available", lambda: cuda)
        patch.setattr(ray_cluster.time, "monotonic", lambda: self.seconds)
        patch.setattr(ray_cluster.time, "sleep", self._sleep)

    def _resources(self) -> dict[str, float]:
        count = self._counts.pop(0) if len(self._counts) > 1 else self._counts[0]
        return {"GPU": float(count)} if count else {}

    def _sleep(self, seconds: float) -> None:
        self.seconds += seconds


def make_config(backend: WeightBackend, address: str | None = "auto") -> Config:
    config = Config()
    config.rollout.workers, config.rollout.tensor_parallel = 2, 2
    config.rollout.weight_backend, config.rollout.ray_address = backend, address
    return config


def test_without_any_gpu_the_engines_run_on_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Ray(monkeypatch, [0], cuda=False)
    assert not has_gpus(make_config(WeightBackend.ray))
    assert clock.seconds == 0


@pytest.mark.parametrize(
    ("backend", "cuda"), [(WeightBackend.nccl, False), (WeightBackend.ray, True)]
)
def test_no_gpu_yet_is_not_taken_for_no_gpu(
    monkeypatch: pytest.MonkeyPatch, backend: WeightBackend, cuda: bool
) -> None:
    clock = Ray(monkeypatch, [0, 0, 2, 4], cuda)
    assert has_gpus(make_config(backend))
    assert 0 < clock.seconds < ray_cluster.JOIN_S


@pytest.mark.parametrize(("count", "cuda"), [(0, True), (3, True), (3, False)])
def test_too_few_gpus_are_refused_after_a_while(
    monkeypatch: pytest.MonkeyPatch, count: int, cuda: bool
) -> None:
    clock = Ray(monkeypatch, [count], cuda)
    with pytest.raises(SettingError, match=rf"workers = 2: .* needs 4 GPUs, and Ray has {count}"):
        has_gpus(make_config(WeightBackend.ray))
    assert clock.seconds >= ray_cluster.JOIN_S


def test_a_ray_that_was_started_here_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Ray(monkeypatch, [1], cuda=True)
    with pytest.raises(SettingError, match="needs 4 GPUs, and Ray has 1"):
        has_gpus(make_config(WeightBackend.ray, address=None))
    assert clock.seconds == 0


def test_the_token_of_ray_start_is_used_with_any_address(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(ray_cluster, "use_token_if_there_is_one", lambda **_: calls.append("token"))
    monkeypatch.setattr(ray, "init", lambda **_: calls.append("init"))
    join_ray("node:6379")
    assert calls == ["token", "init"]


@pytest.mark.parametrize(
    "error", [ConnectionError("no Ray\nand much more"), RuntimeError("another version of Ray")]
)
def test_a_ray_that_cannot_be_joined_is_one_line(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(**_: Any) -> None:
        raise error

    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setattr(ray_cluster, "use_token_if_there_is_one", lambda **_: False)
    with pytest.raises(SettingError, match=r"rollout.ray_address = 'node:6379': cannot be") as seen:
        join_ray("node:6379")
    assert "\n" not in str(seen.value)


def test_an_actor_finds_relative_paths_where_the_run_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    (tmp_path / "shard").touch()
    enter(str(tmp_path), "auto")
    assert Path("shard").exists()
    with pytest.raises(SettingError, match=r"rollout.ray_address = 'auto': its node .* has no"):
        enter(str(tmp_path / "elsewhere"), "auto")


def test_a_worker_can_send_a_setting_error() -> None:
    error = SettingError("rollout.workers", 3, "is odd")
    assert str(pickle.loads(pickle.dumps(error))) == str(error) == "rollout.workers = 3: is odd"


def test_a_ray_that_is_started_here_gets_a_token_of_its_own_unless_there_is_one() -> None:
    environment: dict[str, str] = {}
    own_token(environment)
    assert len(environment["RAY_AUTH_TOKEN"]) == 64
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        given = {name: "the user's"}
        own_token(given)
        assert given == {name: "the user's"}


def test_only_a_ray_that_is_started_here_is_kept_from_the_network() -> None:
    before = ray_constants.ENABLE_RAY_CLUSTER
    with loopback_only():
        assert get_node_ip_address() == "127.0.0.1"
        assert os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] == "0"
    assert before == ray_constants.ENABLE_RAY_CLUSTER
    assert ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR not in os.environ
