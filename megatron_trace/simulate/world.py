"""How worlds are drawn.

Trees are drawn from the root down. A history of value v (the success probability under the start
policy) gets two kinds of actions: better ones, together of probability w, that lead to value v₁,
and worse ones that lead to v₀, with

    w·v₁ + (1−w)·v₀ = v   and   w(1−w)(v₁−v₀)² = δ·v(1−v).

So values are a martingale under the start policy, and a turn settles the share δ of the variance
that was still open: δ = `decides` at informative turns and 0 at the others. At an episode's last
turn δ = 1, as its actions succeed or fail for certain. (With graded rewards δ = `decides` there
too, and the value that remains is the reward.)
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from megatron_trace.simulate.config import WorldConfig, check_world
from megatron_trace.simulate.trees import Floats, World, level

ACTION_CONCENTRATION = 2.0
"""Dirichlet concentration of the probabilities of actions that are equally good."""

TASK_MARGIN = 1e-3
"""A task's success probability under the start policy is at least this far from 0 and 1."""

DECIDED_MARGIN = 1e-9
"""A value so close to 0 or 1 leaves nothing to settle."""

EMBEDDING_WIDTH = 8


class _Level(NamedTuple):
    """The turns that are taken at histories of one depth.

    Attributes:
        last: whether they end the episode, [tasks, n].
        logits: log-probability of each action, [tasks, n, actions].
        sign: `World.sign`, [tasks, n, actions].
        skill: which skill of its band and depth a history uses, [tasks, n].
        after: value after each action, [tasks, n, actions].
    """

    last: NDArray[np.bool_]
    logits: Floats
    sign: NDArray[np.int8]
    skill: NDArray[np.int32]
    after: Floats


def make_world(config: WorldConfig) -> World:
    """Draw a world; the same config gives the same world.

    Raises:
        SettingError: the world cannot be made.
    """
    check_world(config)
    # One generator for everything: a draw added or moved makes all worlds different, and results
    # in docs/results would not repeat.
    rng = np.random.default_rng([config.seed, 20260611])
    value = np.zeros((config.tasks, config.nodes))
    value[:, 0] = _difficulties(config, rng)
    inner = (config.tasks, config.nodes - config.actions**config.depth)
    terminal = np.zeros(value.shape, dtype=bool)
    reward = np.zeros(value.shape)
    logits = np.zeros((*inner, config.actions))
    sign = np.zeros((*inner, config.actions), dtype=np.int8)
    skill = np.zeros(inner, dtype=np.int32)
    band = _bands(value[:, 0], config, rng)
    for depth in range(config.depth):
        here, below = level(config, depth), level(config, depth + 1)
        turns = _draw_level(value[:, here], depth, config, rng)
        logits[:, here] = turns.logits
        sign[:, here] = turns.sign
        first_skill = (band[:, None] * config.depth + depth) * config.skills
        skill[:, here] = first_skill + turns.skill
        value[:, below] = turns.after.reshape(config.tasks, -1)
        # Below a terminal node the arrays continue, as trees are full. Those nodes are terminal
        # too, without a reward.
        ended = terminal[:, here]
        ends = np.repeat(turns.last & ~ended, config.actions, axis=1)
        terminal[:, below] = ends | np.repeat(ended, config.actions, axis=1)
        outcome = value[:, below] if config.graded else np.rint(value[:, below])
        reward[:, below] = np.where(ends, outcome, 0.0)
    return World(
        config,
        terminal,
        reward,
        logits,
        sign,
        skill,
        action_tokens=_lengths(config.action_tokens, config, rng),
        observation_tokens=_lengths(config.observation_tokens, config, rng),
        embedding=_embedding(value[:, 0], config, rng),
    )


def _draw_level(value: Floats, depth: int, config: WorldConfig, rng: np.random.Generator) -> _Level:
    """The turns at histories of `depth` with these values, [tasks, n]."""
    size = value.shape
    last = (rng.random(size) < config.early) | (depth == config.depth - 1)
    matters = last | (rng.random(size) < config.informative)
    settled = np.where(matters, config.decides, 0.0)
    if not config.graded:
        settled = np.where(last, 1.0, settled)
    better, probability, after = _split(value, settled, config.actions, rng)
    habit = np.where(rng.random(size) < config.consistency, 1, -1)[..., None]
    sign = np.where(better, habit, -habit).astype(np.int8)
    skill = rng.integers(config.skills, size=size, dtype=np.int32)
    return _Level(last, np.log(probability), sign, skill, after)


def _difficulties(config: WorldConfig, rng: np.random.Generator) -> Floats:
    """Success probabilities from a Beta distribution of the given mean and spread, [tasks]."""
    if config.spread == 0.0:
        return np.full(config.tasks, config.success)
    if config.spread == 1.0:
        solved = rng.random(config.tasks) < config.success
        return np.where(solved, 1.0 - TASK_MARGIN, TASK_MARGIN)
    weight = 1.0 / config.spread - 1.0
    alpha, beta = weight * config.success, weight * (1 - config.success)
    drawn = rng.beta(alpha, beta, config.tasks)
    return np.clip(drawn, TASK_MARGIN, 1 - TASK_MARGIN)


def _split(
    value: Floats, settled: Floats, actions: int, rng: np.random.Generator
) -> tuple[NDArray[np.bool_], Floats, Floats]:
    """Actions of histories with these values: which are better, their probabilities, values after.

    Args:
        value, settled: v and δ of the module's equations, [tasks, n].

    Returns:
        three arrays of shape [tasks, n, actions].
    """
    # Where v is 0 or 1 nothing is left to settle, and the equations divide by 0: ½ stands in, with
    # δ = 0, so that both kinds of action keep the value.
    undecided = np.abs(value - 0.5) < 0.5 - DECIDED_MARGIN
    settled = np.where(undecided, settled, 0.0)
    v = np.where(undecided, value, 0.5)
    # v₁ is 1 at w = least, and v₀ is 0 at w = most; between them both are probabilities.
    least = settled * v / (1 - v + settled * v)
    most = v / (v + settled * (1 - v))
    part = rng.uniform(0.05, 0.95, value.shape)
    weight = least + (most - least) * part
    step = np.sqrt(settled * v * (1 - v))
    up = value + step * np.sqrt((1 - weight) / weight)
    down = value - step * np.sqrt(weight / (1 - weight))
    better = _better_actions(value.shape, actions, rng)
    # The smallest share is not 0, whose logit would be −inf.
    share = rng.gamma(ACTION_CONCENTRATION, size=better.shape) + 1e-9
    of_better, of_worse = _normalised(share * better), _normalised(share * ~better)
    weight = weight[..., None]
    probability = weight * of_better + (1 - weight) * of_worse
    after = np.where(better, up[..., None], down[..., None])
    return better, probability, np.clip(after, 0.0, 1.0)


def _better_actions(
    shape: tuple[int, ...], actions: int, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Which actions are better, [*shape, actions]; at least one is, and at least one is not."""
    # Ranks of random numbers are a random order. The actions that come first are the better ones.
    order = rng.random((*shape, actions)).argsort(axis=-1)
    rank = order.argsort(axis=-1)
    count = rng.integers(1, actions, size=shape)
    return rank < count[..., None]


def _normalised(shares: Floats) -> Floats:
    """Shares with sum 1 over the last axis."""
    return shares / shares.sum(axis=-1, keepdims=True)


def _bands(value: Floats, config: WorldConfig, rng: np.random.Generator) -> NDArray[np.int32]:
    """Band of each task, by the rank of its difficulty plus as much noise, [tasks]."""
    difficulty = _standardised_logits(value) + rng.normal(size=config.tasks)
    rank = difficulty.argsort().argsort()
    return (rank * config.bands // config.tasks).astype(np.int32)


def _lengths(mean: int, config: WorldConfig, rng: np.random.Generator) -> NDArray[np.int64]:
    """Log-normal lengths of a given mean, [tasks, nodes], at least 1."""
    spread = config.token_spread
    of_task = rng.normal(0.0, spread, (config.tasks, 1))
    of_turn = rng.normal(0.0, spread, (config.tasks, config.nodes))
    # The mean of exp(of_task + of_turn) is exp(spread²).
    lengths = np.rint(mean * np.exp(of_task + of_turn - spread**2))
    return np.maximum(1, lengths).astype(np.int64)


def _embedding(value: Floats, config: WorldConfig, rng: np.random.Generator) -> Floats:
    """Difficulty along a random direction, plus noise, [tasks, EMBEDDING_WIDTH]."""
    direction = rng.normal(size=EMBEDDING_WIDTH)
    direction /= np.linalg.norm(direction)
    noise = config.embedding_noise * rng.normal(size=(config.tasks, EMBEDDING_WIDTH))
    return _standardised_logits(value)[:, None] * direction + noise


def _standardised_logits(value: Floats) -> Floats:
    """Logits of success probabilities, with mean 0 and standard deviation 1 over the tasks."""
    logits = np.log(value / (1 - value))
    return (logits - logits.mean()) / max(float(logits.std()), 1e-9)
