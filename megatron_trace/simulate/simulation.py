"""A strategy in a world, one training step's sampling after another."""

from copy import deepcopy
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from megatron_trace.allocation import Allocator, advantage_settings
from megatron_trace.config import AdvantageConfig, AllocationConfig
from megatron_trace.data.tasks import Task, task_stream
from megatron_trace.learning.estimator import make_estimator
from megatron_trace.learning.rows import success_rates
from megatron_trace.report.metrics import predictor_metrics
from megatron_trace.rollout.sampling import sample_trees
from megatron_trace.simulate.gradient import sampled_gradient
from megatron_trace.simulate.policy import SimulatedPolicy, start_policy
from megatron_trace.simulate.sampler import SimulatedSampler
from megatron_trace.simulate.steps import Turns, turns_of
from megatron_trace.simulate.trees import Floats, World
from megatron_trace.tree import RolloutTree
from megatron_trace.tree.backup import is_mixed
from megatron_trace.tree.predictions import Outcomes, auc


class NoProgress:
    """A progress display that shows nothing."""

    def phase(self, name: str, total: int | None = None) -> None:
        """A phase begins."""

    def advance(self, n: int = 1) -> None:
        """A part of the phase is done."""


@dataclass(frozen=True)
class Step:
    """One step's sampling and what it teaches.

    Attributes:
        predictor: scores of the predictions, as training reports them, and those of `_every_root`.
        advantage: of every turn, [turns].
        counted: turns that count in the gradient (`learning.advantage.filter_groups`), [turns];
            None: all.
        gradient: with respect to θ, [world.parameters].
    """

    trees: list[RolloutTree]
    predictor: dict[str, float]
    turns: Turns
    advantage: Floats
    counted: NDArray[np.bool_] | None
    gradient: Floats


class Simulation:
    """Allocator, sampler and stream of tasks. The policy changes only in `sampler.update`.

    Attributes:
        advantage: how advantages are made, the estimator's name filled in.
        sampler: holds the policy.
        rollouts, tokens: sampled so far.
    """

    def __init__(
        self,
        world: World,
        allocation: AllocationConfig,
        advantage: AdvantageConfig | None = None,
        *,
        seed: int = 0,
        slots: int | None = None,
        policy: SimulatedPolicy | None = None,
    ) -> None:
        """
        Args:
            advantage: how advantages are made; `name` None: the strategy's own estimator.
            slots: rollouts that run at the same time; None: all.
            policy: the one to begin with; None: the start policy.

        Raises:
            SettingError: the strategy is unknown, or cannot work with its settings.
        """
        self.world, self.allocator = world, Allocator(allocation, seed)
        self._settings, self._tasks = (allocation, seed), world.tasks()
        self.advantage = advantage_settings(allocation, advantage or AdvantageConfig())
        self._estimate = make_estimator(self.advantage)
        requires = self.allocator.requires
        self.sampler = SimulatedSampler(
            policy or start_policy(world), seed=seed, requires=requires, slots=slots
        )
        self._stream = task_stream(self._tasks, seed)
        self._steps = self.rollouts = self.tokens = 0

    @property
    def policy(self) -> SimulatedPolicy:
        """The policy that samples."""
        return self.sampler.policy

    def step(self, *, independent: bool = False) -> Step:
        """Sample one step's budget.

        Args:
            independent: draw the candidates from all tasks, whatever tasks other steps had.
                Otherwise they are the next tasks of the stream, as in training.

        Raises:
            RuntimeError: the strategy plans no rollouts.
        """
        self._steps += 1
        count = self.allocator.candidates()
        self._candidates = self._draw(count) if independent else list(islice(self._stream, count))
        self._known = deepcopy(self.allocator.state())
        step = self._sample(self.allocator, f"step {self._steps}")
        self._show(step)
        self.rollouts += int(step.turns.terminal.sum())
        self.tokens += int(step.turns.tokens.sum())
        return step

    def again(self) -> Step:
        """The last step with other random numbers: the same candidates and the same knowledge.

        It is not counted in `rollouts`, `tokens` and the clock.
        """
        # The allocator itself has learned from the step by now. A copy takes its earlier state.
        allocator, clock = Allocator(*self._settings), self.sampler.clock
        allocator.restore(self._known)
        step = self._sample(allocator, f"step {self._steps} again")
        self.sampler.clock = clock
        return step

    def _draw(self, count: int) -> list[Task]:
        """`count` tasks in an order that only this step has; none twice before all are taken."""
        tasks, seed = self._tasks, self._settings[1]
        # The third number keeps these draws apart from the stream's, whose seeds are [seed, epoch].
        rng = np.random.default_rng([seed, self._steps, 1])
        order = [rng.permutation(len(tasks)) for _ in range(0, count, len(tasks))]
        return [tasks[index] for index in np.concatenate(order)[:count]]

    def _sample(self, allocator: Allocator, name: str) -> Step:
        trees, cost = sample_trees(self.sampler, allocator, self._candidates, name, NoProgress())
        if not trees:
            strategy = self._settings[0].strategy
            raise RuntimeError(
                f"strategy {strategy} planned no rollouts in {name}: nothing can be learned from it"
            )
        turns = turns_of(trees, self.world.config.actions)
        advantage = np.concatenate([self._estimate(tree) for tree in trees])
        counted = None
        if self.advantage.filter_groups:
            counted = np.array([is_mixed(tree) for tree in trees])[turns.tree]
        gradient = sampled_gradient(self.policy, turns, advantage, counted)
        predictor = predictor_metrics(trees) | cost.predictor | self._every_root()
        return Step(trees, predictor, turns, advantage, counted, gradient)

    def _show(self, step: Step) -> None:
        """Show the predictor the anchors of a step."""
        rates = [success_rates(tree, self.advantage) for tree in step.trees]
        anchors = ~step.turns.terminal
        success = np.concatenate(rates)[anchors]
        self.sampler.see(step.turns.task[anchors], step.turns.node[anchors], success)

    def _every_root(self) -> dict[str, float]:
        """Exact scores at the roots of all tasks, chosen or not; none where all end alike.

        Returns:
            `predictor_auc_every_root`, and `predictor_auc_limit`: that of the true success.
        """
        tasks = np.arange(self.world.config.tasks)
        roots = np.zeros_like(tasks)
        success, weight = self.policy.value[:, 0], np.ones(len(tasks))
        guesses = {"every_root": self.sampler.predict(tasks, roots), "limit": success}
        areas = {name: auc(Outcomes(guess, success, weight)) for name, guess in guesses.items()}
        return {f"predictor_auc_{name}": area for name, area in areas.items() if area is not None}
