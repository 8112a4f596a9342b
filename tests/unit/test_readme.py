"""The README's snippets are real: each runs from a file of its own, as the README says."""

import re
from pathlib import Path

import pytest

from megatron_trace.allocation import Allocator
from megatron_trace.config import AllocationConfig
from megatron_trace.tree import ROOT
from tests.unit.allocation.outcomes import half, sample_step
from tests.unit.allocation.views import roots

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture
def snippets(tmp_path: Path) -> Path:
    """A folder with every Python snippet, under the name that its first line gives."""
    found = re.findall(r"```python\n(# (\w+\.py)\n.*?)```", README.read_text(), re.DOTALL)
    for code, name in found:
        (tmp_path / name).write_text(code)
    return tmp_path


def test_the_strategy_gives_the_budget_to_the_tasks_nearest_to_one_half(snippets: Path) -> None:
    strategy = str(snippets / "frontier.py")
    allocator = Allocator(AllocationConfig(strategy=strategy, budget=16, group=8))
    assert allocator.candidates() == 8
    trees = roots(0.1, 0.45, 0.9, 0.8, 0.5, 0.3, 0.0, 1.0)
    _, plans = sample_step(allocator, trees, half)
    assert plans == [[{ROOT: 8} if index in (1, 4) else {} for index in range(8)]]
