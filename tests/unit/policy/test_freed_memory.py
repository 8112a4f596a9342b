"""Freed memory goes back to the system."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from megatron_trace.policy import freed_memory
from megatron_trace.policy import policy as policy_file
from megatron_trace.policy.freed_memory import UPDATES, give_back_freed_memory
from megatron_trace.policy.policy import Policy

PIECES, PIECE = 2_000, 100_000  # bytes: below the size from which glibc maps a block by itself
FREED = PIECES * PIECE


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4_096


def test_memory_below_a_block_in_use_is_given_back() -> None:
    pieces = [np.ones(PIECE, np.uint8) for _ in range(PIECES)]
    # The last piece keeps glibc from giving back what lies below it.
    last = pieces.pop()
    give_back_freed_memory()
    held = resident()
    pieces.clear()
    assert resident() > held - FREED // 2
    give_back_freed_memory()
    assert resident() < held - FREED // 2
    assert last.all()


def test_without_glibc_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freed_memory, "_malloc_trim", lambda: None)
    give_back_freed_memory()


def test_a_policy_gives_memory_back_once_in_several_updates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    updates = SimpleNamespace(updates=0)

    def train_on(rows: list[object]) -> dict[str, float]:
        updates.updates += 1
        return {}

    policy = Policy.__new__(Policy)
    vars(policy).update(_step=SimpleNamespace(train_on=train_on), _optimizer=updates)
    given: list[int] = []
    monkeypatch.setattr(
        policy_file, "give_back_freed_memory", lambda: given.append(updates.updates)
    )
    for _ in range(2 * UPDATES):
        assert policy.update([]) == {}
    assert given == [UPDATES, 2 * UPDATES]
