"""The simulated sampler gives what a fleet would give."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, logit

from megatron_trace.rollout.types import RolloutRequest
from megatron_trace.simulate import SimulatedPolicy, SimulatedSampler, make_world, start_policy
from megatron_trace.simulate.steps import turns_of
from megatron_trace.tree import ROOT, Requires
from tests.unit.simulate.conftest import SMALL


def requests(sampler, tasks, each, name="r"):
    trees = sampler.open_trees(tasks)
    return trees, [
        RolloutRequest(f"{name}/{number}/{n}", tree.history_ids(ROOT), tree.turns[ROOT].state)
        for number, tree in enumerate(trees)
        for n in range(each)
    ]


def grown(sampler, tasks, each):
    trees, asked = requests(sampler, tasks, each)
    for number, rollout in enumerate(sampler.sample(asked)):
        trees[number // each].graft(ROOT, rollout.turns)
    return trees


def outcomes(tree):
    """Of every turn the terminal reward of its own rollout; NaN for the root."""
    rewards = {turn.rollout: turn.reward for turn in tree.turns if turn.terminal}
    return [rewards[turn.rollout] if index else np.nan for index, turn in enumerate(tree.turns)]


def test_rollouts_succeed_as_often_as_the_values_of_their_histories_say(world) -> None:
    policy, each = start_policy(world), 400
    trees = grown(SimulatedSampler(policy), world.tasks(), each)
    turns = turns_of(trees, world.config.actions)
    outcome = np.concatenate([outcomes(tree) for tree in trees])
    histories = turns.task * world.config.nodes + turns.node
    checked = 0
    for history in np.unique(histories[turns.sampled]):
        found = outcome[(histories == history) & turns.sampled]
        v = policy.value.ravel()[history]
        if len(found) >= 100:
            checked += 1
            assert abs(found.mean() - v) <= 5 * np.sqrt(v * (1 - v) / len(found)) + 1e-12
    assert checked > 50


def test_log_probabilities_and_entropies_are_those_of_the_choices(world) -> None:
    policy = start_policy(world)
    sampler = SimulatedSampler(policy, requires=frozenset({Requires.entropies}))
    trees = grown(sampler, world.tasks(), 5)
    turns = turns_of(trees, world.config.actions)
    for n in np.flatnonzero(turns.sampled):
        turn = trees[turns.tree[n]].turns[turns.turn[n]]
        p = policy.probability[turns.task[n], turns.above[n]]
        assert sum(turn.logprobs) == pytest.approx(np.log(p[turns.action[n]]))
        assert sum(turn.entropies) == pytest.approx(-(p * np.log(p)).sum())
        assert (
            len(turn.action_ids) == len(turn.logprobs) == len(turn.versions) == len(turn.entropies)
        )


def test_what_is_not_asked_for_is_not_there(world) -> None:
    tree = grown(SimulatedSampler(start_policy(world)), world.tasks()[:1], 1)[0]
    assert tree.embedding is None and not any(turn.entropies for turn in tree.turns)
    requires = frozenset({Requires.embedding})
    asked = SimulatedSampler(start_policy(world), requires=requires).open_trees(world.tasks()[:1])[
        0
    ]
    assert asked.embedding == world.embedding[0].tolist()


def test_a_rollout_follows_from_the_seed_and_its_name_alone(world) -> None:
    def actions(seed, keep):
        sampler = SimulatedSampler(start_policy(world), seed=seed)
        _, asked = requests(sampler, world.tasks(), 3)
        return [[t.action_ids for t in rollout.turns] for rollout in sampler.sample(asked[keep])]

    everything = actions(0, slice(None))
    assert actions(0, slice(10, 20)) == everything[10:20]
    assert actions(1, slice(None)) != everything


def test_a_continuation_goes_on_from_its_anchor(world) -> None:
    sampler = SimulatedSampler(start_policy(world))
    tree = next(tree for tree in grown(sampler, world.tasks(), 4) if tree.prefixes())
    anchor = tree.prefixes()[0]
    asked = [
        RolloutRequest(f"c/{n}", tree.history_ids(anchor), tree.turns[anchor].state)
        for n in range(500)
    ]
    rewards = [rollout.turns[-1].reward for rollout in sampler.sample(asked)]
    v = sampler.policy.value[tree.task["index"], tree.turns[anchor].state["node"]]
    assert abs(np.mean(rewards) - v) <= 5 * np.sqrt(v * (1 - v) / 500)


def test_rollouts_end_in_the_order_of_their_lengths_and_may_bring_further_ones(world) -> None:
    sampler, ended = SimulatedSampler(start_policy(world)), []
    _, asked = requests(sampler, world.tasks(), 2)
    _, more = requests(sampler, world.tasks(), 1, name="further")
    further = iter(more)

    def on_done(index, rollout):
        ended.append((index, sampler.clock, sum(len(turn.action_ids) for turn in rollout.turns)))
        return [next(further)] if index < len(more) else None

    rollouts = sampler.sample(asked, on_done)
    assert sorted(index for index, _, _ in ended) == list(range(len(asked) + len(more)))
    assert len(rollouts) == len(ended) and [time for _, time, _ in ended] == sorted(
        time for _, time, _ in ended
    )
    assert all(time == length for index, time, length in ended if index < len(asked))
    assert all(time > length for index, time, length in ended if index >= len(asked))


def test_with_one_slot_rollouts_run_one_after_another(world) -> None:
    sampler = SimulatedSampler(start_policy(world), slots=1)
    _, asked = requests(sampler, world.tasks(), 1)
    rollouts = sampler.sample(asked)
    assert sampler.clock == sum(
        len(turn.action_ids) for rollout in rollouts for turn in rollout.turns
    )


def test_predictions_err_as_they_should_and_a_history_keeps_its_own() -> None:
    world = make_world(
        replace(SMALL, tasks=3000, depth=2, noise=0.5, prefix_noise=1.0, bias=0.3, spread=0.1)
    )
    sampler = SimulatedSampler(start_policy(world))
    trees = sampler.open_trees(world.tasks())
    error = logit([tree.turns[ROOT].prediction for tree in trees]) - logit(
        sampler.policy.value[:, 0]
    )
    assert error.mean() == pytest.approx(0.3, abs=0.05) and error.std() == pytest.approx(
        0.5, abs=0.03
    )
    again = sampler.open_trees(world.tasks())
    assert [t.turns[ROOT].prediction for t in again] == [t.turns[ROOT].prediction for t in trees]
    sampler.update(sampler.policy)
    later = sampler.open_trees(world.tasks())
    assert later[0].turns[ROOT].prediction != trees[0].turns[ROOT].prediction


def test_a_predictor_that_lags_predicts_an_older_policy() -> None:
    world = make_world(replace(SMALL, noise=0.0, delay=1))
    old, new = start_policy(world), SimulatedPolicy(world, np.full(world.parameters, 1.0))
    sampler = SimulatedSampler(old)
    for policy, known in ((new, old), (new, new)):
        sampler.update(policy)
        predictions = np.array(
            [tree.turns[ROOT].prediction for tree in sampler.open_trees(world.tasks())]
        )
        assert predictions == pytest.approx(
            expit(logit(np.clip(known.value[:, 0], 5e-3, 1 - 5e-3)))
        )


def test_a_band_shares_an_error_that_lasts() -> None:
    world = make_world(
        replace(SMALL, tasks=400, bands=40, noise=0.0, band_noise=1.0, success=0.5, spread=0.1)
    )
    sampler, errors = SimulatedSampler(start_policy(world)), []
    value = np.clip(sampler.policy.value[:, ROOT], 0.005, 0.995)
    for _ in range(2):
        predictions = [tree.turns[ROOT].prediction for tree in sampler.open_trees(world.tasks())]
        errors.append(logit(predictions) - logit(value))
        sampler.update(sampler.policy)
    assert errors[0] == pytest.approx(errors[1])
    of_bands = [errors[0][world.band == band] for band in range(40)]
    assert max(np.ptp(error) for error in of_bands) < 1e-9
    assert np.std([error[0] for error in of_bands]) == pytest.approx(1.0, abs=0.25)
