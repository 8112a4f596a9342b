"""The allocator holds every strategy to the budget."""

import json

import pytest

from megatron_trace.allocation import Allocator, Strategy
from megatron_trace.config import AllocationConfig, BudgetUnit, SettingError
from megatron_trace.tree import ROOT
from tests.unit.allocation.outcomes import half, sample_step
from tests.unit.allocation.views import roots
from tests.unit.trees import chain


def test_a_budget_of_tokens_is_met_over_the_steps() -> None:
    settings = AllocationConfig(
        strategy="uniform", unit=BudgetUnit.tokens, budget=400, group=2, expected_tokens=100
    )
    allocator, spent = Allocator(settings), []
    for number in range(6):
        trees, _ = sample_step(
            allocator,
            roots(*[0.5] * allocator.candidates()),
            half,
            f"step {number}",
            tokens_per_turn=10,
        )
        spent.append(sum(len(turn.action_ids) for tree in trees for turn in tree.turns))
    # At first 100 tokens a rollout are expected, then the 20 that it takes.
    assert spent[0] <= 400 and sum(spent) == pytest.approx(6 * 400, abs=40)


def test_only_trees_with_rollouts_come_back() -> None:
    trees, plans = sample_step(
        Allocator(AllocationConfig(strategy="uniform", budget=8, group=4)),
        roots(0.5, 0.5, 0.5),
        half,
    )
    assert len(trees) == 2 and plans == [[{ROOT: 4}, {ROOT: 4}, {}]]


class Greedy(Strategy):
    def plan(self, view):
        return view.at_roots({0: view.rollouts + 1})


def test_a_strategy_that_overspends_is_stopped() -> None:
    allocator = Allocator(AllocationConfig(strategy="uniform", budget=8))
    allocator.strategy = Greedy(AllocationConfig(budget=8))
    step = allocator.begin(roots(0.5), "step 1")
    with pytest.raises(RuntimeError, match="planned 9 rollouts where 8 are left"):
        step.plan()


class OnePrefix(Strategy):
    """Three rollouts, then one more from every prefix."""

    def plan(self, view):
        if view.round == 0:
            return view.at_roots({0: 3})
        self.seen, self.running = view.trees[0], dict(view.pending[0])
        return [dict.fromkeys(self.seen.prefixes(), 1)] if view.round == 1 else view.nothing()


@pytest.mark.parametrize("merge", [False, True])
def test_a_strategy_sees_equal_histories_as_one_anchor(merge: bool) -> None:
    allocator = Allocator(AllocationConfig(strategy="uniform", budget=8, merge=merge))
    allocator.strategy = strategy = OnePrefix(AllocationConfig(budget=8))
    step = allocator.begin(roots(0.5), "step 1")
    assert step.plan() == [{ROOT: 3}]
    step.ended(0, ROOT, chain(100, 2, 1.0))  # turns 1 and 2
    step.ended(0, ROOT, chain(100, 2, 0.0))  # 3 and 4
    step.ended(0, ROOT, chain(200, 2, 0.0))  # 5 and 6
    # A rollout is taken from the first of equal anchors.
    assert step.plan() == [{1: 1, 5: 1} if merge else {1: 1, 3: 1, 5: 1}]
    assert strategy.seen.prefixes() == ([1, 4] if merge else [1, 3, 5])
    assert len(step.trees[0].turns) == 7
    assert step.plan() == []
    assert strategy.running == ({1: 1, 4: 1} if merge else {1: 1, 3: 1, 5: 1})


def test_a_tree_keeps_what_was_believed_before_its_step() -> None:
    allocator = Allocator(AllocationConfig(strategy="uniform", budget=4, group=2))
    trees, _ = sample_step(allocator, roots(0.5, 0.8), lambda *_: 1.0, "step 1")
    # Before any outcome a prediction is worth one rollout.
    assert [tree.belief for tree in trees] == [pytest.approx((v, 1 - v)) for v in (0.5, 0.8)]
    again = roots(0.5)
    allocator.begin(again, "step 2")
    alpha, beta = again[0].belief or (0.0, 0.0)
    # Two successes of the visit before.
    assert alpha / (alpha + beta) > 0.6


class Listening(Strategy):
    deviation = 0.0

    def plan(self, view):
        self.deviation = view.root_logit_std
        return view.at_roots({0: 4, 1: 4}) if view.round == 0 else view.nothing()


def test_a_strategy_is_told_how_far_roots_were_off() -> None:
    allocator = Allocator(AllocationConfig(strategy="uniform", budget=8, calibrate=False))
    allocator.strategy = Listening(AllocationConfig(budget=8))
    sample_step(allocator, roots(0.5, 0.5), lambda *_: 1.0)
    assert allocator.strategy.deviation == 1.0
    step = allocator.begin(roots(0.5, 0.5), "step 2")
    step.plan()
    # Twice ¾·(¼ − ¼/4) over (¾·¼)², beside a deviation of 1 worth 5/16.
    expected = ((2 * 9 / 64 + 5 / 16) / (2 * 9 / 256 + 5 / 16)) ** 0.5
    assert allocator.strategy.deviation == pytest.approx(expected)
    assert allocator.finish(step)[1]["deviation_root"] == pytest.approx(expected)


def test_what_it_has_learned_survives_json() -> None:
    settings = AllocationConfig(budget=16, pool=4, calibrate=True)
    one, other = Allocator(settings), Allocator(settings)
    sample_step(one, roots(0.5, 0.4, 0.6, 0.3), half)
    other.restore(json.loads(json.dumps(one.state())))
    assert other.state() == one.state()
    assert (
        sample_step(one, roots(0.2, 0.4, 0.6, 0.3), half)[1]
        == sample_step(other, roots(0.2, 0.4, 0.6, 0.3), half)[1]
    )


def test_a_strategy_of_ones_own_is_a_file(tmp_path) -> None:
    own = tmp_path / "first_only.py"
    own.write_text(
        "from megatron_trace.allocation import Strategy\n\n\nclass FirstOnly(Strategy):\n"
        "    def plan(self, view):\n        return view.at_roots({0: view.rollouts})\n"
    )
    trees, _ = sample_step(
        Allocator(AllocationConfig(strategy=str(own), budget=8)), roots(0.5, 0.5), half
    )
    assert [len(tree.rollouts) for tree in trees] == [8]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"strategy": "nosuch"},
            r"allocation.strategy = 'nosuch': no such strategy; there is .*uniform",
        ),
        (
            {"options": {"tracee": {}}},
            r"allocation.options.tracee = \{\}: no such strategy; did you mean trace",
        ),
        (
            {"strategy": "uniform", "options": {"uniform": {"x": 1}}},
            r"allocation.options.uniform.x = 1",
        ),
        ({"strategy": "uniform", "group": 1}, r"allocation.group = 1: must be at least 2"),
    ],
)
def test_what_cannot_work_is_one_line(settings, said) -> None:
    with pytest.raises(SettingError, match=said):
        Allocator(AllocationConfig(**settings))


def test_a_step_in_tokens_pays_for_a_group_however_dear_rollouts_become() -> None:
    for strategy in ("uniform", "dapo", "trace"):
        settings = AllocationConfig(
            strategy=strategy,
            unit=BudgetUnit.tokens,
            budget=80,
            group=8,
            expected_tokens=10,
            pool=32,
        )
        allocator = Allocator(settings)
        for number in range(4):
            trees, _ = sample_step(
                allocator,
                roots(*[0.5] * allocator.candidates()),
                half,
                f"step {number}",
                tokens_per_turn=40,
            )
            # Half a group, as rollouts cost more than was expected when the step began.
            least = max(2, allocator.strategy.least // 2)
            assert sum(len(tree.rollouts) for tree in trees) >= least


def test_a_budget_of_tokens_that_pays_for_no_group_is_refused() -> None:
    for strategy, rollouts in (("uniform", 8), ("trace_paper", 4)):
        with pytest.raises(
            SettingError, match=rf"allocation.budget = 500: must pay for a group of {rollouts}"
        ):
            Allocator(AllocationConfig(strategy=strategy, unit=BudgetUnit.tokens, budget=500))


def test_a_prediction_that_is_no_number_ends_the_run_with_its_reason() -> None:
    with pytest.raises(FloatingPointError, match=r"predicts nan: the policy or its predictor"):
        Allocator(AllocationConfig(strategy="uniform", budget=8)).begin(
            roots(0.5, float("nan")), "step 1"
        )


def test_tokens_of_trace_need_not_pay_for_a_group() -> None:
    settings = AllocationConfig(
        unit=BudgetUnit.tokens, budget=80, group=64, expected_tokens=10, pool=32
    )
    allocator = Allocator(settings)
    assert allocator.strategy.least == 2
    assert allocator.begin(roots(*[0.5] * 32), "step 1").left == 80
