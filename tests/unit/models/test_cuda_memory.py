"""Who lets the segments of PyTorch's CUDA allocator grow."""

import os

import pytest

from megatron_trace.models.cuda_memory import EXPANDABLE, SETTINGS, fix_segments, grow_segments

CUDA = "PYTORCH_CUDA_ALLOC_CONF"


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SETTINGS:
        # Set first, so that the test's own changes are undone as well.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_a_train_rank_s_segments_grow_and_an_engine_s_that_inherits_them_do_not() -> None:
    grow_segments()
    assert os.environ[CUDA] == EXPANDABLE
    fix_segments()
    assert CUDA not in os.environ


@pytest.mark.parametrize("name", SETTINGS)
def test_a_user_s_setting_stays(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "max_split_size_mb:512")
    before = dict(os.environ)
    grow_segments()
    fix_segments()
    assert dict(os.environ) == before
