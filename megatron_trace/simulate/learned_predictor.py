"""A simulated predictor that learns from the outcomes of the steps, as the head does in training.

The head reads hidden states. They tell what a history says and what kind of decision comes next.
They do not tell how often the policy succeeds from there: that must be learned, and learned again
as the policy changes. So the features of a history are

- at a root, the prompt's embedding (`World.embedding`): difficulty along a hidden direction, with
  noise;
- at a prefix, that embedding in columns apart, and a view of the history: the logit of its success
  under the *start policy*, along another hidden direction, with noise of the same size;
- the depth, and the skill that the next decision needs, as one column each. Through these the
  predictor can follow the policy, whose success rises skill by skill.

All are fixed facts of a world: a history's noise never changes, and nothing tells where the policy
is now. The read-out is logistic,

    Ṽ(n) = σ(w·x(n)),   w = argmin ½·RIDGE·|w|² − Σ_i c_i [s_i log Ṽ_i + (1 − s_i) log(1 − Ṽ_i)],

over the anchors i of the last steps, with backed-up success s_i as in training and with c_i =
KEPT^age. The head learns by the same loss (`learning/read_out.py`). It keeps a normal distribution
over the weights in place of old anchors, and counts roots together as much as prefixes.
"""

from collections import deque

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit

from megatron_trace.simulate.policy import start_policy
from megatron_trace.simulate.predictor import MARGIN_BEFORE_ERROR
from megatron_trace.simulate.random_numbers import name_key, normal
from megatron_trace.simulate.trees import Floats, Ints, World, level

VIEW_WIDTH = 8
"""Columns of the view of a history; a prompt's embedding has as many."""

RIDGE = 1.0
"""½·RIDGE·|w|² is added to the loss: it pulls the weights to 0."""

KEPT = 0.8
"""Weight of a step's anchors, relative to those of the next step."""

STEPS = 16
"""Steps whose anchors are kept; older ones would weigh less than 3 %."""


def _times(x: Floats, w: Floats) -> Floats:
    """x·w, [n], of x [n, columns]."""
    # The sums of `x @ w` depend on the number of threads and of rows. A last digit decides ties
    # between tasks, and then two runs of one seed would differ.
    return np.einsum("ij,j->i", x, w)


class LearnedPredictor:
    """Predicts ½ everywhere until it has learned."""

    def __init__(self, world: World) -> None:
        """Of a world, whose true values it reads only to make the noisy views."""
        self._world = world
        value = np.clip(start_policy(world).value, MARGIN_BEFORE_ERROR, 1 - MARGIN_BEFORE_ERROR)
        logits = logit(value)
        roots = logits[:, 0]
        # As in the prompts' embeddings, tasks have mean 0 and deviation 1.
        self._quality = (logits - roots.mean()) / max(float(roots.std()), 1e-9)
        self._depth = np.concatenate(
            [np.full(self._nodes_at(depth), depth) for depth in range(world.config.depth)]
        )
        self._key = name_key(f"view/{world.config.seed}")
        direction = normal(self._key, np.arange(VIEW_WIDTH, dtype=np.uint64))
        self._direction = direction / np.linalg.norm(direction)
        self._steps: deque[tuple[Floats, Floats]] = deque(maxlen=STEPS)
        self._weights = np.zeros(self.features(np.zeros(1, int), np.zeros(1, int)).shape[1])

    def predict(self, task: Ints, node: Ints) -> Floats:
        """Ṽ of histories that have not ended, [n]; the same until `learn`."""
        return expit(_times(self.features(task, node), self._weights))

    def see(self, task: Ints, node: Ints, success: Floats) -> None:
        """Remember a step's anchors and their backed-up success, each [n]."""
        self._steps.append((self.features(task, node), success))

    def learn(self) -> None:
        """Fit the weights to what was seen."""
        if not self._steps:
            return
        x = np.concatenate([features for features, _ in self._steps])
        success = np.concatenate([seen for _, seen in self._steps])
        ages = range(len(self._steps) - 1, -1, -1)
        counted = [
            np.full(len(seen), KEPT**age) for age, (_, seen) in zip(ages, self._steps, strict=True)
        ]
        weight = np.concatenate(counted)

        def loss(w: Floats) -> tuple[float, Floats]:
            z = _times(x, w)
            # −s log σ(z) − (1 − s) log(1 − σ(z)) = log(1 + e^z) − s·z
            fit = weight @ (np.logaddexp(0.0, z) - success * z)
            error = weight * (expit(z) - success)
            gradient = np.einsum("ij,i->j", x, error) + RIDGE * w
            return float(fit + 0.5 * RIDGE * (w @ w)), gradient

        self._weights = minimize(loss, self._weights, jac=True, method="L-BFGS-B").x

    def features(self, task: Ints, node: Ints) -> Floats:
        """x of histories that have not ended, [n, columns]."""
        world, config = self._world, self._world.config
        embedding = world.embedding[task]
        prefix = (node > 0)[:, None]
        return np.concatenate(
            [
                np.where(prefix, 0.0, embedding),
                np.where(prefix, embedding, 0.0),
                np.where(prefix, self._view(task, node), 0.0),
                np.eye(config.depth)[self._depth[node]],
                np.eye(world.parameters)[world.skill[task, node]],
            ],
            axis=1,
        )

    def _view(self, task: Ints, node: Ints) -> Floats:
        """What a history shows of its quality, [n, VIEW_WIDTH]."""
        columns = np.arange(VIEW_WIDTH, dtype=np.uint64)
        tasks, nodes = task.astype(np.uint64)[:, None], node.astype(np.uint64)[:, None]
        noise = normal(self._key, tasks, nodes, columns)
        quality = self._quality[task, node][:, None]
        return quality * self._direction + self._world.config.embedding_noise * noise

    def _nodes_at(self, depth: int) -> int:
        here = level(self._world.config, depth)
        return here.stop - here.start
