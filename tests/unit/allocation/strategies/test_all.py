"""What holds for every strategy: the budget is met, plans follow from the seed, nothing terminal is
continued.
"""

import json

import numpy as np
import pytest

from megatron_trace.allocation import STRATEGIES, Allocator, strategy_class
from megatron_trace.config import AllocationConfig, BudgetUnit, SettingError
from megatron_trace.tree import ROOT, RolloutTree, Turn

BUDGET, GROUP = 48, 6
CASES = [(name, {}) for name in STRATEGIES.names()] + [
    ("infotree", {"infotree": {"speculative": True}})
]


def allocator(name, options, seed=0, **settings):
    settings = {"budget": BUDGET, "group": GROUP, "pool": 40, "expected_tokens": 8} | settings
    return Allocator(AllocationConfig(strategy=name, options=options, **settings), seed)


def tasks(count, step):
    """Only roots, of every difficulty."""
    difficulty = np.random.default_rng([step, 1]).random(count)
    return [
        RolloutTree.from_prompt(
            {"id": f"task {step}/{number}"},
            [1, 2],
            prediction=float(easy),
            state={},
            embedding=[float(easy), 1.0],
        )
        for number, easy in enumerate(difficulty)
    ]


def rollout(tree, rng):
    """A chain of 1 to 4 turns that succeeds as likely as the root's prediction says."""
    length, easy = int(rng.integers(1, 5)), tree.turns[ROOT].prediction
    success = float(rng.random() < easy)
    return [
        Turn(
            parent=-1,
            action_ids=[number] * int(tokens),
            logprobs=(-rng.random(tokens)).tolist(),
            versions=[0] * int(tokens),
            observation_ids=[7],
            prediction=None if number == length - 1 else float(rng.random()),
            terminal=number == length - 1,
            reward=success if number == length - 1 else 0.0,
            state=None if number == length - 1 else {"at": number},
            entropies=rng.random(tokens).tolist(),
        )
        for number, tokens in enumerate(rng.integers(1, 4, length))
    ]


def run_step(spender, number):
    """Sample a step: rollouts end in random order. Returns grown trees and all plans."""
    rng = np.random.default_rng([number, 2])
    step = spender.begin(tasks(spender.candidates(), number), f"step {number}")
    trees, waiting, plans = step.trees, [], []

    def note(plan):
        plans.append([{int(anchor): count for anchor, count in tree.items()} for tree in plan])
        for index, anchors in enumerate(plan):
            for anchor, count in anchors.items():
                assert not trees[index].turns[anchor].terminal
                waiting.extend([(index, anchor)] * count)
        return bool(waiting)

    while note(step.plan()):
        while waiting:
            index, anchor = waiting.pop(int(rng.integers(len(waiting))))
            step.ended(index, anchor, rollout(trees[index], rng))
            if spender.streams:
                note(step.plan())
    return spender.finish(step)[0], plans


def rollouts(trees):
    return sum(len(tree.rollouts) for tree in trees)


def tokens(trees):
    return sum(len(turn.action_ids) for tree in trees for turn in tree.turns)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_budget_is_spent_and_never_exceeded(name, options) -> None:
    spender = allocator(name, options)
    for step in range(4):
        trees, _ = run_step(spender, step)
        assert rollouts(trees) <= BUDGET
        assert rollouts(trees) == BUDGET or name == "dapo"


@pytest.mark.parametrize(("name", "options"), CASES)
def test_plans_follow_from_seed_and_step(name, options) -> None:
    once, again = (run_step(allocator(name, options), 1)[1] for _ in range(2))
    assert once == again


@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_resumed_run_plans_as_one_that_went_on(name, options) -> None:
    went_on, resumed = allocator(name, options), allocator(name, options)
    for step in range(2):
        run_step(went_on, step)
    state = json.dumps(went_on.state())
    resumed.restore(json.loads(state))
    assert json.dumps(resumed.state()) == state
    assert run_step(went_on, 2)[1] == run_step(resumed, 2)[1]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_budget_of_tokens_is_met_over_the_steps(name, options) -> None:
    steps, budget = 8, 400
    spender = allocator(name, options, unit=BudgetUnit.tokens, budget=budget)
    spent = [tokens(run_step(spender, step)[0]) for step in range(steps)]
    group = GROUP * 8
    assert all(amount > 0 for amount in spent)
    assert sum(spent) <= steps * budget + group
    assert sum(spent) >= (steps - 1) * budget - group or name == "dapo"


@pytest.mark.parametrize("name", STRATEGIES.names())
def test_only_strategies_that_branch_take_continuations(name) -> None:
    trees, _ = run_step(allocator(name, {}), 1)
    branches = any(rollout.anchor != ROOT for tree in trees for rollout in tree.rollouts)
    assert branches == strategy_class(name).branches


@pytest.mark.parametrize("name", ["arpo", "at2po", "infotree", "tree_grpo", "treepo"])
def test_every_task_gets_its_group_continuations_included(name) -> None:
    trees, _ = run_step(allocator(name, {"infotree": {"rescue": 0.0}}), 1)
    assert [len(tree.rollouts) for tree in trees] == [GROUP] * (BUDGET // GROUP)


@pytest.mark.parametrize("name", ["arpo", "at2po", "infotree", "tree_grpo", "treepo"])
def test_a_group_without_chains_or_contrast_is_refused(name) -> None:
    with pytest.raises(SettingError, match=r"allocation.bare_share = 0.0: must be above 0"):
        allocator(name, {}, bare_share=0.0)
    with pytest.raises(SettingError, match=r"allocation.group = 1: must be at least 2"):
        allocator(name, {}, group=1)
