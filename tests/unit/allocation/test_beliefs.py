"""What beliefs learn of outcomes."""

import json

import numpy as np
import pytest
from scipy.special import logit

from megatron_trace.allocation.beliefs import Beliefs
from megatron_trace.tree import ROOT, RolloutTree
from tests.unit.trees import bare_tree, chain, empty_tree


def tasks(rng, number, concentration, *, slope=1.0, rollouts=4) -> list[RolloutTree]:
    """Trees of bare rollouts: success probabilities scatter around v as Beta(κv, κ(1 − v)) does,
    where logit v is `slope` times the logit of what is predicted.
    """
    trees = []
    for index in range(number):
        prediction = float(rng.uniform(0.1, 0.9))
        v = 1 / (1 + np.exp(-slope * logit(prediction)))
        p = rng.beta(concentration * v, concentration * (1 - v))
        tree = empty_tree(prediction, f"task {number} {index} {rng.random()}")
        for rollout in range(rollouts):
            tree.graft(ROOT, chain(100 * (rollout + 1), 2, float(rng.random() < p)))
        trees.append(tree)
    return trees


def test_before_any_outcome_the_mean_is_the_prediction() -> None:
    belief = Beliefs().roots([empty_tree(0.3), empty_tree(0.9)])
    assert belief.mean == pytest.approx([0.3, 0.9])


def test_outcomes_of_bare_rollouts_are_counts() -> None:
    tree = bare_tree([1.0, 1.0, 0.0])
    before, after = Beliefs().roots([empty_tree()]), Beliefs().roots([tree])
    assert after.alpha - before.alpha == pytest.approx([2.0])
    assert after.beta - before.beta == pytest.approx([1.0])


def test_continuations_say_nothing_about_the_root() -> None:
    tree = bare_tree([1.0, 1.0])
    before = Beliefs().roots([tree])
    tree.graft(1, chain(900, 1, 0.0))
    after = Beliefs().roots([tree])
    assert (after.alpha, after.beta) == (before.alpha, before.beta)


@pytest.mark.parametrize("concentration", [0.3, 1.0, 5.0])
def test_the_concentration_is_found(concentration) -> None:
    rng, beliefs = np.random.default_rng(0), Beliefs()
    for _ in range(5):
        beliefs.observe(tasks(rng, 40, concentration))
    found = beliefs.metrics([])["belief_concentration_root"]
    assert found == pytest.approx(concentration, rel=0.4)


def test_predictions_that_are_too_sure_are_flattened() -> None:
    rng, beliefs = np.random.default_rng(0), Beliefs()
    for _ in range(5):
        beliefs.observe(tasks(rng, 40, 5.0, slope=0.3))
    assert beliefs.metrics([])["belief_slope_root"] == pytest.approx(0.3, abs=0.15)


def test_a_task_that_comes_again_is_remembered() -> None:
    tree = bare_tree([0.0] * 6)
    beliefs = Beliefs()
    beliefs.observe([tree])
    again, other = empty_tree(0.5, tree.task["id"]), empty_tree(0.5, "another task")
    known, unknown = beliefs.roots([again, other]).mean
    assert known < unknown - 0.1


def test_siblings_that_failed_make_a_prefix_look_worse() -> None:
    success, failure = bare_tree([0.0, 1.0, 1.0]), bare_tree([0.0, 0.0, 0.0])
    better = Beliefs().prefixes(success, [1]).mean
    worse = Beliefs().prefixes(failure, [1]).mean
    assert worse < better


def test_a_state_that_was_stored_gives_the_same_beliefs() -> None:
    rng, beliefs, resumed = np.random.default_rng(0), Beliefs(), Beliefs()
    trees = tasks(rng, 20, 1.0)
    trees[0].graft(1, chain(900, 1, 0.0))
    beliefs.observe(trees)
    resumed.restore(json.loads(json.dumps(beliefs.state())))
    more = tasks(rng, 20, 1.0)
    for one in (beliefs, resumed):
        one.observe(more)
    assert json.dumps(beliefs.state()) == json.dumps(resumed.state())


def test_the_flip_rate_is_what_was_believed_before_the_continuations() -> None:
    tree = bare_tree([0.0, 0.0], turns=3)
    believed = Beliefs().prefixes(tree, [1]).mean[0]
    assert "belief_flip_rate" not in Beliefs().metrics([tree])
    tree.graft(1, chain(900, 1, 1.0))
    assert Beliefs().metrics([tree])["belief_flip_rate"] == pytest.approx(believed)


def test_of_continuations_planned_together_only_the_first_counts_in_the_flip_rate() -> None:
    tree = bare_tree([0.0, 0.0], turns=3)
    believed = Beliefs().prefixes(tree, [1]).mean[0]
    for number in range(5):
        tree.graft(1, chain(900 + 100 * number, 1, 1.0))
    assert Beliefs().metrics([tree])["belief_flip_rate"] == pytest.approx(believed)


def test_a_task_that_is_twice_in_a_pool_is_remembered_with_all_its_outcomes() -> None:
    one, other = bare_tree([1.0] * 4), bare_tree([0.0] * 4)
    forwards, backwards = Beliefs(), Beliefs()
    forwards.observe([one, other])
    backwards.observe([other, one])
    assert forwards.state()["visits"] == backwards.state()["visits"] == {"task": [4.0, 4.0]}
