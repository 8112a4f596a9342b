"""How the train ranks join."""

from typing import Any

import pytest
from torch import distributed

from megatron_trace.config import ParallelConfig
from megatron_trace.policy import cpu_adapter
from megatron_trace.policy import distributed as ranks


@pytest.mark.parametrize("launched", [True, False])
def test_ranks_wait_an_hour_for_the_slowest(
    launched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(cpu_adapter, "install", lambda: True)
    monkeypatch.setattr(ranks, "stay_on_this_machine", lambda _: None)
    monkeypatch.setattr(ranks, "_lay_out", lambda *_: None)
    monkeypatch.setattr(distributed, "is_initialized", lambda: False)
    monkeypatch.setattr(distributed, "init_process_group", lambda _, **given: asked.update(given))
    if launched:
        monkeypatch.setenv("RANK", "0")
    else:
        monkeypatch.delenv("RANK", raising=False)
    ranks.start(ParallelConfig(), seed=0)
    assert asked["timeout"].total_seconds() == 3600


def test_ranks_of_one_machine_do_not_look_for_its_name() -> None:
    given = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "no-such-host"}
    ranks.stay_on_this_machine(given)
    assert given["MASTER_ADDR"] == "127.0.0.1"
    assert given["GLOO_SOCKET_IFNAME"] == "lo"


def test_ranks_of_several_machines_keep_the_address_that_they_were_given() -> None:
    given = {"WORLD_SIZE": "16", "LOCAL_WORLD_SIZE": "8", "MASTER_ADDR": "node-1"}
    before = dict(given)
    ranks.stay_on_this_machine(given)
    assert given == before


def test_a_single_rank_needs_no_store_of_torchruns(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(cpu_adapter, "install", lambda: True)
    monkeypatch.setattr(ranks, "_lay_out", lambda *_: None)
    monkeypatch.setattr(distributed, "is_initialized", lambda: False)
    monkeypatch.setattr(distributed, "init_process_group", lambda _, **given: asked.update(given))
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "no-such-host")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    ranks.start(ParallelConfig(), seed=0)
    assert isinstance(asked["store"], distributed.HashStore)
