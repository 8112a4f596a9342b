"""The shipped models' descriptions, and configurations without a file."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from megatron_trace.check.load import load_config
from megatron_trace.config import Config

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Shipped configs name their files from the repository's root; and nobody is a train rank."""
    monkeypatch.chdir(ROOT)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    yield


@pytest.fixture
def model() -> Callable[[str], dict[str, Any]]:
    """config.json of a shipped model."""
    return lambda name: json.loads((ROOT / "models" / name / "config.json").read_text())


@pytest.fixture
def settings() -> Callable[..., Config]:
    """The defaults with overrides, for Qwen3-14B unless said otherwise."""
    return lambda *overrides: load_config(None, ["model.path=models/Qwen3-14B", *overrides])
