"""What a checkpoint may make Transformer Engine read."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from megatron_trace.policy import checkpoint

VARIABLE = "NVTE_ALLOW_UNSAFE_PICKLE_EXTRA_STATE"


class Module:
    """A model that notes what Transformer Engine would see while its state is loaded."""

    def __init__(self, fp8: str | None, recipe: str) -> None:
        self.config = SimpleNamespace(fp8=fp8, fp8_recipe=recipe)
        self.seen: str | None = None
        self.loaded: dict[str, Any] = {}

    def load_state_dict(self, state: dict[str, Any], strict: bool = True) -> None:
        self.seen, self.loaded = os.environ.get(VARIABLE), state
        if "broken" in state:
            raise ValueError


def chunks_of(module: Module) -> list[Any]:
    return [SimpleNamespace(module=module)]


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The model's state in the checkpoint, which a test may change."""
    state: dict[str, Any] = {}
    monkeypatch.setattr(checkpoint, "sharded_state", lambda *_, **__: {"model": {0: state}})
    monkeypatch.setattr(checkpoint.dist_checkpointing, "load", lambda state, _: state)
    return state


@pytest.mark.usefixtures("state")
@pytest.mark.parametrize(
    ("fp8", "recipe", "seen"),
    [
        ("hybrid", "delayed", "1"),
        ("hybrid", "tensorwise", None),
        ("hybrid", "blockwise", None),
        (None, "delayed", None),
    ],
)
def test_pickled_statistics_are_read_for_the_delayed_recipe_alone(
    fp8: str | None, recipe: str, seen: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    module = Module(fp8, recipe)
    checkpoint.load(chunks_of(module), None, Path())
    assert module.seen == seen
    assert VARIABLE not in os.environ


@pytest.mark.parametrize("before", [None, "0"])
def test_the_permission_ends_with_the_loading_whatever_happens(
    state: dict[str, Any], before: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    if before is not None:
        monkeypatch.setenv(VARIABLE, before)
    state["broken"] = True
    with pytest.raises(ValueError):
        checkpoint.load(chunks_of(Module("hybrid", "delayed")), None, Path())
    assert os.environ.get(VARIABLE) == before


def test_a_strangers_statistics_are_never_read(
    state: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    state |= {name: SimpleNamespace(key=name) for name in ("linear.weight", "linear._extra_state")}
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(
        checkpoint, "load_sharded_metadata", lambda _: dict.fromkeys(state, SimpleNamespace())
    )
    module = Module("hybrid", "delayed")
    checkpoint.load_start(chunks_of(module), Path())
    assert module.seen is None
    assert list(module.loaded) == ["linear.weight"]
