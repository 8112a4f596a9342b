"""The order in which rank 0 waits and sends. vLLM and CUDA are stand-ins here: importing vLLM takes
as long as all unit tests of this folder.
"""

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

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

    def __init__(self, source: Any, machine: SimpleNamespace) -> None:
        self._source, self._machine = source, machine

    def send_weights(self) -> None:
        for number, (name, _) in enumerate(self._source):
            self._machine.log.append(f"pack {name}")
            self._machine.stream = self._machine.side[(number + 1) % 2]


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
        return Transfer(source, here)

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


def test_rank_0_waits_for_the_update_and_keeps_what_another_stream_packs(machine: Any) -> None:
    def weights() -> Iterator[tuple[str, Tensor]]:
        machine.log.append("gather")
        yield from ((name, Tensor(name, machine.log)) for name in "abc")

    policy = SimpleNamespace(weights=weights, weight_metadata=list)
    assert machine.nccl.NCCLSender(1, [], policy).send() == 3
    assert machine.log[:2] == ["wait for the default stream", "gather"]
    assert machine.log[2:] == [
        *("keep a for the default stream", "check a", "pack a"),
        *("keep b for side 1", "check b", "pack b"),
        *("keep c for side 0", "check c", "pack c"),
    ]
