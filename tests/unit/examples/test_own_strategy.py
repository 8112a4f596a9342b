"""The strategy of examples/allocation runs from its file, by its name alone."""

from pathlib import Path

import pytest

from megatron_trace.allocation import Allocator
from megatron_trace.config import AllocationConfig, BudgetUnit, SettingError
from megatron_trace.tree import ROOT
from tests.unit.allocation.outcomes import half, never, sample_step
from tests.unit.allocation.views import roots

FILE = Path(__file__).parents[3] / "examples/allocation/screening.py"


def screening(budget=16, unit=BudgetUnit.rollouts, **options):
    given = {"screening": options}
    return Allocator(
        AllocationConfig(
            strategy=str(FILE), budget=budget, unit=unit, expected_tokens=4, options=given
        )
    )


def test_it_is_one_file_of_at_most_sixty_lines() -> None:
    assert len(FILE.read_text().splitlines()) <= 60


def test_mixed_tasks_share_the_rest() -> None:
    allocator = screening()
    assert allocator.candidates() == 4
    trees = roots(0.5, 0.0, 0.5, 0.0)
    _, plans = sample_step(
        allocator, trees, lambda tree, n: half(tree, n) * tree.turns[ROOT].prediction
    )
    assert plans == [[{ROOT: 2}] * 4, [{ROOT: 4}, {}, {ROOT: 4}, {}]]


@pytest.mark.parametrize("outcome", [half, never])
@pytest.mark.parametrize("options", [{}, {"share": 0.3}, {"share": 1.0, "each": 3}])
def test_the_budget_is_spent_exactly(outcome, options) -> None:
    allocator = screening(budget=17, **options)
    trees, _ = sample_step(allocator, roots(*[0.5] * allocator.candidates()), outcome)
    assert sum(len(tree.rollouts) for tree in trees) == 17


def test_it_serves_a_budget_of_tokens_too() -> None:
    allocator = screening(budget=160, unit=BudgetUnit.tokens)
    trees, _ = sample_step(allocator, roots(*[0.5] * allocator.candidates()), half)
    assert sum(len(tree.rollouts) for tree in trees) == 40


def test_its_settings_are_checked_before_anything_starts() -> None:
    with pytest.raises(
        SettingError, match=r"allocation.options.screening.share = 0.0: must be above 0"
    ):
        screening(share=0.0)
    with pytest.raises(SettingError, match=r"allocation.options.screening.shares = 1"):
        screening(shares=1)
