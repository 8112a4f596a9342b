"""Both stages of a step, with a sampler that needs no engine."""

import numpy as np
import pytest

from megatron_trace.allocation import Allocator
from megatron_trace.config import AllocationConfig
from megatron_trace.rollout.evaluation import evaluate
from megatron_trace.rollout.sampling import sample_trees
from megatron_trace.rollout.types import SampledRollout
from megatron_trace.tree import ROOT
from tests.unit.trees import chain, empty_tree


class CoinFleet:
    """Rollouts of three turns that succeed by the parity of their number."""

    def __init__(self):
        self.requests = []

    def open_trees(self, tasks):
        return [empty_tree(prediction=task["v"], task_id=task["id"]) for task in tasks]

    def sample(self, requests, on_done=None):
        requests, rollouts = list(requests), []
        for number, request in enumerate(requests):  # which may grow
            self.requests.append(request)
            rollouts.append(SampledRollout(chain(100 * number, 3, float(number % 2)), 0.5, 4, 10))
            requests += (on_done and on_done(number, rollouts[-1])) or []
        return rollouts


class Silent:
    """Counts what the display would show."""

    def __init__(self):
        self.phases, self.units = [], 0

    def phase(self, name, total=None):
        self.phases.append((name, total))

    def advance(self, n=1):
        self.units += n


TASKS = [{"id": f"t{i}", "v": v} for i, v in enumerate([0.5, 0.02, 0.6, 0.99])]


def settings(strategy="trace", budget=16, **others):
    options = {"trace": {"floor": 4, "thompson_std": 0.0}} | others.pop("options", {})
    return AllocationConfig(
        strategy=strategy,
        budget=budget,
        pool=4,
        group=4,
        calibrate=False,
        options=options,
        **{"bare_share": 0.5} | others,
    )


@pytest.mark.parametrize("strategy", ["trace", "uniform"])
def test_the_budget_spent_is_exactly_the_budget_set(strategy) -> None:
    fleet, display = CoinFleet(), Silent()
    trees, cost = sample_trees(fleet, Allocator(settings(strategy)), TASKS, "step 1", display)
    assert sum(len(tree.rollouts) for tree in trees) == 16 == len(fleet.requests) == display.units
    assert (cost.prompt_tokens, cost.cached_tokens) == (160, 64)


def test_trace_samples_the_uncertain_tasks_and_grows_their_prefixes() -> None:
    trees, _ = sample_trees(CoinFleet(), Allocator(settings()), TASKS, "step 1", Silent())
    assert [tree.task["id"] for tree in trees] == ["t0", "t2"]
    for tree in trees:
        assert [rollout.stage for rollout in tree.rollouts] == ["bare"] * 4 + ["continuation"] * 4


def test_a_strategy_that_streams_adds_continuations_while_other_rollouts_still_run() -> None:
    fleet, display = CoinFleet(), Silent()
    allocator = Allocator(settings("infotree", options={"infotree": {"speculative": True}}))
    trees, _ = sample_trees(fleet, allocator, TASKS, "step 1", display)
    anchors = [rollout.anchor for tree in trees for rollout in tree.rollouts]
    assert (len(anchors), anchors.count(ROOT)) == (16, 8)
    assert display.phases[2] == ("bare rollouts", 8) and len(display.phases) == 4, (
        "one call of the fleet"
    )


def test_every_rollout_of_a_run_has_its_own_name_and_continues_its_anchor() -> None:
    fleet = CoinFleet()
    trees, _ = sample_trees(
        fleet, Allocator(settings(budget=12, bare_share=2 / 3)), TASKS, "step 1", Silent()
    )
    sample_trees(fleet, Allocator(settings(budget=12, bare_share=2 / 3)), TASKS, "step 2", Silent())
    assert len({request.name for request in fleet.requests}) == 24
    grown = [(tree, rollout.anchor) for tree in trees for rollout in tree.rollouts[4:]]
    for (tree, anchor), request in zip(grown, fleet.requests[8:12], strict=True):
        assert request.history_ids == tree.history_ids(anchor)
        assert request.state == tree.turns[anchor].state


def test_evaluation_counts_each_set_and_all_tasks() -> None:
    row = evaluate(CoinFleet(), {"easy": TASKS[:1], "hard": TASKS[1:]}, Silent())
    assert row["evaluation"] == {"easy": 0.0, "hard": pytest.approx(2 / 3), "mean": 0.5}
    assert row["evaluation_tasks"] == 4
    assert row["evaluation_standard_error"] == pytest.approx(np.std([0, 1, 0, 1]) / 2)
