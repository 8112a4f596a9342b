"""The order in which rank 0 waits and sends. vLLM and CUDA are stand-ins here: importing vLLM takes
as long as all unit tests of this folder.
"""

import importlib
import sys
from collections.abc import Iterator
from contextlib import suppress
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from ray.exceptions import RayActorError

TRANSFER = "vllm.distributed.weight_transfer"
SENDER = "megatron_trace.rollout.vllm.nccl"


class Tensor:
    """A tensor that notes on which stream its memory is still in use."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log

    def record_stream(self, stream: "Stream") -> None:
        self.log.append(f"keep {self.name} for {stream.name}")


class Stream:
    """A CUDA stream that notes who waits for it."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self._log = name, log

    def synchronize(self) -> None:
        self._log.append(f"wait for {self.name}")


class Transfer:
    """vLLM's sending side, which packs on two streams in turn."""

    def __init__(self, client: Any, source: Any, machine: SimpleNamespace) -> None:
        self._client, self._source, self._machine = client, source, machine
        self._open = True

    def send_weights(self) -> None:
        # vLLM calls it in a second thread, while the loop below broadcasts.
        with suppress(RayActorError):
            self._client.update_weights({})
        for number, (name, _) in enumerate(self._source):
            if self._open:
                self._machine.log.append(f"pack {name}")
            self._machine.stream = self._machine.side[(number + 1) % 2]

    def shutdown(self) -> None:
        self._open = False


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    log: list[str] = []
    side = [Stream("side 0", log), Stream("side 1", log)]
    here = SimpleNamespace(log=log, stream=Stream("the default stream", log), side=side)

    def stub(name: str, **attributes: Any) -> None:
        module = ModuleType(name)
        vars(module).update(attributes)
        monkeypatch.setitem(sys.modules, name, module)

    def trainer_init(info: Any, *, client: Any, source: Any) -> Transfer:
        return Transfer(client, source, here)

    for package in ("vllm", "vllm.distributed", TRANSFER, "vllm.utils"):
        stub(package, __path__=[])
    stub(f"{TRANSFER}.base", ParamMeta=SimpleNamespace, WeightSource=object)
    stub(f"{TRANSFER}.nccl_engine", NCCLTrainerInitInfo=SimpleNamespace)
    factory = SimpleNamespace(trainer_init=trainer_init)
    stub(f"{TRANSFER}.factory", WeightTransferTrainerFactory=factory)
    stub("vllm.utils.network_utils", get_ip=lambda: "node", get_open_port=lambda: 1)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: here.stream)
    monkeypatch.delitem(sys.modules, SENDER, raising=False)
    nccl = importlib.import_module(SENDER)
    monkeypatch.setattr(nccl, "fingerprint", lambda name, tensor: log.append(f"check {name}") or 1)
    yield SimpleNamespace(nccl=nccl, log=log, state=here)
    del sys.modules[SENDER]


def policy_of(machine: Any) -> Any:
    def weights() -> Iterator[tuple[str, Tensor]]:
        machine.log.append("gather")
        yield from ((name, Tensor(name, machine.log)) for name in "abc")

    return SimpleNamespace(weights=weights, weight_metadata=list)


def test_rank_0_waits_for_the_update_and_keeps_what_another_stream_packs(
    machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine.nccl, "results", list)
    assert machine.nccl.NCCLSender(1, [], policy_of(machine)).send() == 3
    assert machine.log == [
        *("wait for the default stream", "gather"),
        *("keep a for the default stream", "check a", "pack a"),
        *("keep b for side 1", "check b", "pack b"),
        *("keep c for side 0", "check c", "pack c"),
    ]


def test_a_death_aborts_the_broadcast_and_all_weights_are_gathered_to_the_end(
    machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def results(calls: Any) -> None:
        raise RayActorError()

    monkeypatch.setattr(machine.nccl, "results", results)
    machine.nccl.NCCLSender(1, [], policy_of(machine)).send()
    assert [entry for entry in machine.log if "check" in entry] == ["check a", "check b", "check c"]
    assert not [entry for entry in machine.log if "pack" in entry]
