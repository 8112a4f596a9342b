"""The simulated sampler: draws rollouts from a world's decision trees in place of the fleet."""

import heapq
from collections import deque
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from scipy.special import entr

from megatron_trace.rollout.sampling import OnDone
from megatron_trace.rollout.types import RolloutRequest, SampledRollout
from megatron_trace.simulate.learned_predictor import LearnedPredictor
from megatron_trace.simulate.policy import SimulatedPolicy
from megatron_trace.simulate.predictor import predict
from megatron_trace.simulate.random_numbers import name_key, uniform
from megatron_trace.simulate.trees import Floats, Ints
from megatron_trace.tree import Requires, RolloutTree, Turn


class SimulatedSampler:
    """Samples from a simulated policy; tasks are `world.tasks()`.

    An action's first token names the action and carries its log-probability and the entropy of the
    choice; the other tokens are certain. An observation's first token names the history, so no two
    histories share a state.

    Attributes:
        policy: the policy that samples.
        version: its version.
        clock: time of the simulation; an action of n tokens takes n.
    """

    def __init__(
        self,
        policy: SimulatedPolicy,
        *,
        seed: int = 0,
        requires: frozenset[Requires] = frozenset(),
        slots: int | None = None,
    ) -> None:
        """
        Args:
            seed: the run's; all random numbers are derived from it and the requests' names.
            requires: what is provided beyond log-probabilities and predictions.
            slots: rollouts that run at the same time; None: all.
        """
        self.policy, self.version, self.clock = policy, 0, 0
        self._seed, self._requires, self._slots = seed, requires, slots
        self._known = deque([policy], maxlen=policy.world.config.delay + 1)
        learned = policy.world.config.predictor == "learned"
        self._learned = LearnedPredictor(policy.world) if learned else None

    def update(self, policy: SimulatedPolicy) -> None:
        """Sample from `policy` as the next version; a drawn predictor lags `delay` versions, a
        learned one has learned what it saw.
        """
        self.policy, self.version = policy, self.version + 1
        self._known.append(policy)
        if self._learned is not None:
            self._learned.learn()

    def see(self, task: Ints, node: Ints, success: Floats) -> None:
        """Show the predictor a step's anchors and their backed-up success, each [n].

        It learns from them in the next `update`: one version has one predictor.
        """
        if self._learned is not None:
            self._learned.see(task, node, success)

    def predict(self, task: Ints, node: Ints) -> Floats:
        """The predictions at histories that have not ended, [n]."""
        if self._learned is not None:
            return self._learned.predict(task, node)
        key = name_key(f"predictor/{self._seed}/{self.version}")
        return predict(self._known[0], task, node, key)

    def open_trees(self, tasks: Sequence[dict[str, Any]]) -> list[RolloutTree]:
        """A tree of only its root for each task, with its prediction."""
        world = self.policy.world
        index = np.array([task["index"] for task in tasks], dtype=np.int64)
        predictions = self.predict(index, np.zeros_like(index)).tolist()
        embeddings: list[list[float] | None] = [None] * len(tasks)
        if Requires.embedding in self._requires:
            embeddings = world.embedding[index].tolist()
        padding = [0] * (world.config.prompt_tokens - 1)
        trees = []
        for task, prediction, embedding in zip(tasks, predictions, embeddings, strict=True):
            number = task["index"]
            tree = RolloutTree.from_prompt(
                dict(task),
                [number, *padding],
                prediction=prediction,
                state={"task": number, "node": 0},
                embedding=embedding,
            )
            trees.append(tree)
        return trees

    def sample(
        self, requests: Sequence[RolloutRequest], on_done: OnDone | None = None
    ) -> list[SampledRollout]:
        """A rollout for every request, in their order.

        Args:
            on_done: called with (index, rollout) when a rollout ends by the clock; may return
                further requests, which start at that time.
        """
        # All rollouts are drawn at once, which is fast. The heap then lets them end by the clock,
        # in the order in which `slots` parallel rollouts would end.
        rollouts = self._walk(requests)
        waiting, running = deque(range(len(rollouts))), list[tuple[int, int]]()
        while waiting or running:
            while waiting and len(running) < (self._slots or len(rollouts)):
                index = waiting.popleft()
                heapq.heappush(running, (self.clock + _duration(rollouts[index]), index))
            self.clock, index = heapq.heappop(running)
            if on_done is not None and (further := list(on_done(index, rollouts[index]) or ())):
                waiting.extend(range(len(rollouts), len(rollouts) + len(further)))
                rollouts += self._walk(further)
        return rollouts

    def _walk(self, requests: Sequence[RolloutRequest]) -> list[SampledRollout]:
        """Sample all requests to their ends, a turn of all of them at a time."""
        policy, config = self.policy, self.policy.world.config
        task = np.array([request.state["task"] for request in requests], dtype=np.int64)
        node = np.array([request.state["node"] for request in requests], dtype=np.int64)
        # A request's random numbers follow from its name. So they do not depend on what is sampled
        # beside it, and a resumed run draws the same.
        names = [name_key(f"{self._seed}/{request.name}") for request in requests]
        key = np.array(names, dtype=np.uint64)
        predictions = self.predict(task, node).tolist()
        rollouts = [SampledRollout([], prediction, 0, 0) for prediction in predictions]
        live, turn = np.arange(len(requests)), 0
        while len(live):
            draw = uniform(key[live], turn)[:, None]
            below = policy.cumulative[task[live], node[live], :-1]
            action = (draw >= below).sum(axis=-1)
            child = config.actions * node[live] + 1 + action
            turns = self._turns(task[live], node[live], action, child)
            for index, new in zip(live.tolist(), turns, strict=True):
                rollouts[index].turns.append(new)
            node[live], turn = child, turn + 1
            live = live[~policy.world.terminal[task[live], child]]
        return rollouts

    def _turns(self, task: Ints, node: Ints, action: Ints, child: Ints) -> list[Turn]:
        """The turns in which these actions are taken at these nodes, [n]."""
        world, policy = self.policy.world, self.policy
        logprobs = policy.logprob[task, node, action].tolist()
        entropies = entr(policy.probability[task, node]).sum(axis=-1).tolist()
        lengths = world.action_tokens[task, child].tolist()
        turns = []
        for number, name in enumerate(action.tolist()):
            length = lengths[number]
            zeros = _zeros(length)
            turn = Turn(
                parent=-1,
                action_ids=_token_ids(name, length),
                logprobs=[logprobs[number], *zeros],
                versions=[self.version] * length,
                observation_ids=[],
            )
            if Requires.entropies in self._requires:
                turn.entropies = [entropies[number], *zeros]
            turns.append(turn)
        self._end_or_observe(turns, task, child)
        return turns

    def _end_or_observe(self, turns: list[Turn], task: Ints, child: Ints) -> None:
        """Give turns that lead to these nodes their reward, or their observation and prediction."""
        world = self.policy.world
        ended = world.terminal[task, child]
        predictions = iter(self.predict(task[~ended], child[~ended]).tolist())
        terminal = ended.tolist()
        rewards = world.reward[task, child].tolist()
        lengths = world.observation_tokens[task, child].tolist()
        nodes = zip(task.tolist(), child.tolist(), strict=True)
        for number, (turn, (task_number, node)) in enumerate(zip(turns, nodes, strict=True)):
            if terminal[number]:
                turn.terminal, turn.reward = True, rewards[number]
            else:
                turn.observation_ids = [node, *([0] * (lengths[number] - 1))]
                turn.prediction = next(predictions)
                turn.state = {"task": task_number, "node": node}


@cache
def _token_ids(action: int, count: int) -> list[int]:
    return [action] + [0] * (count - 1)


@cache
def _zeros(count: int) -> list[float]:
    return [0.0] * (count - 1)


def _duration(rollout: SampledRollout) -> int:
    return sum(len(turn.action_ids) for turn in rollout.turns)
