"""Both stages of a step, with a sampler that needs no engine."""

from random import Random

import numpy as np
import pytest

from megatron_trace.allocation import Allocator
from megatron_trace.allocation.calibration import Calibrated
from megatron_trace.allocation.registry import STRATEGIES
from megatron_trace.config import AllocationConfig, BudgetUnit
from megatron_trace.rollout.evaluation import evaluate
from megatron_trace.rollout.failures import Failure
from megatron_trace.rollout.sampling import sample_trees
from megatron_trace.rollout.types import SampledRollout
from megatron_trace.supervise.health import UnhealthyRun
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


def settings(strategy="trace_paper", budget=16, **others):
    options = {"trace_paper": {"floor": 4, "thompson_std": 0.0}} | others.pop("options", {})
    return AllocationConfig(
        strategy=strategy,
        budget=budget,
        pool=4,
        group=4,
        calibrate=False,
        options=options,
        **{"bare_share": 0.5} | others,
    )


@pytest.mark.parametrize("strategy", ["trace_paper", "uniform"])
def test_the_budget_spent_is_exactly_the_budget_set(strategy) -> None:
    fleet, display = CoinFleet(), Silent()
    trees, cost = sample_trees(fleet, Allocator(settings(strategy)), TASKS, "step 1", display)
    assert sum(len(tree.rollouts) for tree in trees) == 16 == len(fleet.requests) == display.units
    assert (cost.prompt_tokens, cost.cached_tokens) == (160, 64)
    # A bare rollout's prompts have 3, 7 and 11 tokens, of which 2, 4 and 8 are computed before it.
    assert cost.known_tokens >= 8 * (2 + 4 + 8)


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


def test_evaluation_tells_how_good_the_predictions_at_the_prompts_were() -> None:
    """Predicted were 0.5, 0.02, 0.6 and 0.99; the second and the fourth rollout succeed."""
    row = evaluate(CoinFleet(), {"easy": TASKS[:1], "hard": TASKS[1:]}, Silent())
    found = row["evaluation_predictor"]
    assert found["auc"] == 0.5
    assert found["brier"] == pytest.approx((0.5**2 + 0.98**2 + 0.6**2 + 0.01**2) / 4)
    tasks = [{**task, "v": None} for task in TASKS]
    assert "evaluation_predictor" not in evaluate(CoinFleet(), {"easy": tasks}, Silent())


def test_evaluation_of_several_rollouts_gives_their_mean_and_pass_at_k() -> None:
    tasks = [{"id": f"t{number}", "v": 0.5} for number in range(200)]
    row = evaluate(CoinFleet(), {"coins": tasks}, Silent(), rollouts=4)
    assert row["evaluation_tasks"] == 200
    assert row["evaluation"]["mean"] == 0.5
    # Two of four coins are heads.
    assert row["evaluation_pass"] == {"pass@2": pytest.approx(5 / 6), "pass@4": 1.0}
    # The first of them are the rollouts of an evaluation with one.
    fleet, fleet_4 = CoinFleet(), CoinFleet()
    evaluate(fleet, {"coins": tasks}, Silent())
    evaluate(fleet_4, {"coins": tasks}, Silent(), rollouts=4)
    names = [request.name for request in fleet_4.requests]
    assert [request.name for request in fleet.requests] == names[::4]
    assert len(set(names)) == 800


class FailingFleet(CoinFleet):
    """Fails a share of the tasks, and of the rollouts."""

    def __init__(self, tasks=0.0, rollouts=0.0, seed=0):
        super().__init__()
        self.tasks, self.rollouts, self.random = tasks, rollouts, Random(seed)

    def open_trees(self, tasks):
        opened = []
        for tree in super().open_trees(tasks):
            tree.embedding = [1.0, float(len(opened))]
            failed = self.random.random() < self.tasks
            opened.append(Failure("no reset") if failed else tree)
        return opened

    def sample(self, requests, on_done=None):
        def fail(number, rollout):
            for turn in rollout.turns:
                turn.entropies = [0.1, 0.2]
            if self.random.random() < self.rollouts:
                rollout.failure, rollout.turns = Failure(f"no tool {number}"), []
            return on_done(number, rollout) if on_done else None

        return super().sample(requests, fail)


def step(fleet, strategy="trace_paper", **others):
    allocator = Allocator(settings(strategy, **others))
    return sample_trees(fleet, allocator, TASKS, "step 1", Silent())


def test_a_failed_rollout_joins_no_tree_but_is_paid() -> None:
    fleet = FailingFleet(rollouts=0.3)
    trees, cost = step(fleet)
    failed = len(cost.attempts.failed_rollouts)
    assert failed > 0 and cost.attempts.rollouts == len(fleet.requests) == 16
    assert sum(len(tree.rollouts) for tree in trees) == 16 - failed
    assert sum(len(tree.leaves()) for tree in trees) == 16 - failed
    assert cost.attempts.counts() == {"failed_tasks": 0, "failed_rollouts": failed}


SHARES = [(tasks, rollouts) for tasks in (0.0, 0.5, 1.0) for rollouts in (0.2, 0.7, 1.0)]


@pytest.mark.parametrize("strategy", STRATEGIES.names())
def test_every_strategy_survives_failures_and_comes_to_an_end(strategy, monkeypatch) -> None:
    # Fitting takes longer than all the rest.
    monkeypatch.setattr(Calibrated, "observe", lambda self, new: None)
    for unit, budget in ((BudgetUnit.rollouts, 16), (BudgetUnit.tokens, 96)):
        for seed, (tasks, rollouts) in enumerate(SHARES):
            options = {"infotree": {"speculative": seed % 2 == 0}}
            others = {"unit": unit, "budget": budget, "expected_tokens": 6, "options": options}
            trees, cost = step(FailingFleet(tasks, rollouts, seed), strategy, **others)
            ended = sum(len(tree.rollouts) for tree in trees)
            assert ended + len(cost.attempts.failed_rollouts) == cost.attempts.rollouts


def test_too_many_failures_stop_the_run_and_name_the_first() -> None:
    _, cost = step(FailingFleet(rollouts=0.5))
    cost.attempts.check(0.9)
    message = r"\d+ of 16 rollouts failed .* stop.failed = 0.1 allows; the first: no tool"
    with pytest.raises(UnhealthyRun, match=message):
        cost.attempts.check(0.1)
    _, cost = step(FailingFleet(tasks=0.5))
    with pytest.raises(UnhealthyRun, match=r"of 4 tasks failed .*; the first: no reset"):
        cost.attempts.check(0.1)


@pytest.mark.parametrize("limit", [None, 1.0])
def test_a_step_of_which_all_failed_is_never_learned_from(limit) -> None:
    for fleet in (FailingFleet(tasks=1.0), FailingFleet(rollouts=1.0)):
        _, cost = step(fleet)
        with pytest.raises(UnhealthyRun):
            cost.attempts.check(limit)


def test_the_first_failures_are_told_one_by_one() -> None:
    _, cost = step(FailingFleet(rollouts=0.9))
    lines = cost.attempts.tell()
    assert len(lines) == 4 and all(line.startswith("failed: no tool") for line in lines[:3])
    assert lines[3].startswith(f"{len(cost.attempts.failed_rollouts)} episodes failed")


def test_evaluation_leaves_out_what_failed_and_counts_it() -> None:
    tasks = [{"id": f"t{number}", "v": 0.5} for number in range(40)]
    heldout = {"a": tasks[:20], "b": tasks[20:]}
    row = evaluate(FailingFleet(tasks=0.2, rollouts=0.2), heldout, Silent(), most_failed=0.9)
    assert 0 < row["evaluation_failed"] == 40 - row["evaluation_tasks"]
    assert set(row["evaluation"]) == {"a", "b", "mean"} and row["events"]
    assert all(0.2 < success < 0.8 for success in row["evaluation"].values())
    with pytest.raises(UnhealthyRun):
        evaluate(FailingFleet(rollouts=1.0), heldout, Silent())
