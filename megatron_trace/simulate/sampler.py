"""The simulated sampler: to the allocator what the fleet is, with rollouts drawn from a world's decision trees."""

import heapq
from collections import deque
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr

from megatron_trace.rollout.sampling import OnDone
from megatron_trace.rollout.types import RolloutRequest, SampledRollout
from megatron_trace.simulate.policy import SimulatedPolicy
from megatron_trace.simulate.predictor import predict
from megatron_trace.simulate.random_numbers import name_key, uniform
from megatron_trace.tree import Requires, RolloutTree, Turn

Ints = NDArray[np.int64]


class SimulatedSampler:
    """Samples from a simulated policy; tasks are `world.tasks()`.

    An action's first token names it and carries its log-probability and the entropy of the choice; the rest of its
    tokens follow for certain. An observation's first token names the history, so no two histories share a state.

    Attributes:
        policy: the policy that samples.
        version: its version.
        clock: time of the simulation, in sampled tokens of one rollout: an action of n tokens takes n.
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
            seed: the run's, from which all random numbers are derived by the requests' names.
            requires: what is provided beyond log-probabilities and predictions.
            slots: rollouts that run at the same time; None: all.
        """
        self.policy, self.version, self.clock = policy, 0, 0
        self._seed, self._requires, self._slots = seed, requires, slots
        self._known = deque([policy], maxlen=policy.world.config.delay + 1)

    def update(self, policy: SimulatedPolicy) -> None:
        """Sample from `policy` from now on, as the next version; the predictor follows `delay` versions behind."""
        self.policy, self.version = policy, self.version + 1
        self._known.append(policy)

    def open_trees(self, tasks: Sequence[dict[str, Any]]) -> list[RolloutTree]:
        """A tree of only its root for each task, with its prediction."""
        world = self.policy.world
        index = np.array([task["index"] for task in tasks], dtype=np.int64)
        predictions = self._predict(index, np.zeros_like(index)).tolist()
        embeddings = (
            world.embedding[index].tolist()
            if Requires.embedding in self._requires
            else [None] * len(tasks)
        )
        prompt, trees = [0] * (world.config.prompt_tokens - 1), []
        for task, prediction, embedding in zip(tasks, predictions, embeddings, strict=True):
            state, prompt_ids = {"task": task["index"], "node": 0}, [task["index"], *prompt]
            root = {"prediction": prediction, "state": state, "embedding": embedding}
            trees.append(RolloutTree.from_prompt(dict(task), prompt_ids, **root))
        return trees

    def sample(
        self, requests: Sequence[RolloutRequest], on_done: OnDone | None = None
    ) -> list[SampledRollout]:
        """A rollout for every request, in their order.

        `on_done(index, rollout)` is told each as it ends, by the clock, and may return further requests, which start
        at that time.
        """
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

    def _predict(self, task: Ints, node: Ints) -> NDArray[np.float64]:
        return predict(
            self._known[0], task, node, name_key(f"predictor/{self._seed}/{self.version}")
        )

    def _walk(self, requests: Sequence[RolloutRequest]) -> list[SampledRollout]:
        """Sample all requests to their ends, a turn of all of them at a time."""
        policy, config = self.policy, self.policy.world.config
        task = np.array([request.state["task"] for request in requests], dtype=np.int64)
        node = np.array([request.state["node"] for request in requests], dtype=np.int64)
        key = np.array(
            [name_key(f"{self._seed}/{request.name}") for request in requests], dtype=np.uint64
        )
        anchor = self._predict(task, node).tolist()
        rollouts = [SampledRollout([], prediction, 0, 0) for prediction in anchor]
        live, turn = np.arange(len(requests)), 0
        while len(live):
            draw = uniform(key[live], turn)[:, None]
            action = (draw >= policy.cumulative[task[live], node[live], :-1]).sum(axis=-1)
            child = config.actions * node[live] + 1 + action
            for index, new in zip(
                live.tolist(), self._turns(task[live], node[live], action, child), strict=True
            ):
                rollouts[index].turns.append(new)
            node[live], turn = child, turn + 1
            live = live[~policy.world.terminal[task[live], child]]
        return rollouts

    def _turns(self, task: Ints, node: Ints, action: Ints, child: Ints) -> list[Turn]:
        """The turns in which these actions are taken at these nodes, [n]."""
        world, policy, asked = self.policy.world, self.policy, Requires.entropies in self._requires
        columns = (
            task,
            child,
            action,
            world.action_tokens[task, child],
            world.observation_tokens[task, child],
            policy.logprob[task, node, action],
            entr(policy.probability[task, node]).sum(axis=-1),
            self._predict(task, child),
            world.terminal[task, child],
            world.reward[task, child],
        )
        turns = []
        for i, n, a, length, seen, logprob, entropy, v, end, reward in zip(
            *(column.tolist() for column in columns), strict=True
        ):
            turn = Turn(
                -1, _token_ids(a, length), [logprob, *_zeros(length)], [self.version] * length, []
            )
            if end:
                turn.terminal, turn.reward = True, reward
            else:
                turn.observation_ids, turn.prediction = [n, *([0] * (seen - 1))], v
                turn.state = {"task": i, "node": n}
            if asked:
                turn.entropies = [entropy, *_zeros(length)]
            turns.append(turn)
        return turns


@cache
def _token_ids(action: int, count: int) -> list[int]:
    return [action] + [0] * (count - 1)


@cache
def _zeros(count: int) -> list[float]:
    return [0.0] * (count - 1)


def _duration(rollout: SampledRollout) -> int:
    return sum(len(turn.action_ids) for turn in rollout.turns)
