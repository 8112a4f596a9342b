"""How worlds are drawn.

Trees are drawn from the root down. A history of value v (the success probability under the start
policy) gets two kinds of actions: better ones, together of probability w and each leading to value v₁, and worse ones,
leading to v₀, with

    w·v₁ + (1−w)·v₀ = v   and   w(1−w)(v₁−v₀)² = δ·v(1−v).

So values are a martingale under the start policy, and a turn settles the share δ of the variance that was still open:
δ = `decides` at informative turns, 0 at the others, and 1 at an episode's last, whose actions succeed or fail for
certain. (With graded rewards δ = `decides` there too, and the value that remains is the reward.)
"""

import numpy as np
from numpy.typing import NDArray

from megatron_trace.simulate.config import WorldConfig, check_world
from megatron_trace.simulate.trees import Floats, World, level

EVENNESS = 2.0
"""Dirichlet concentration of the probabilities of actions that are equally good."""

EDGE = 1e-3
"""A task's success probability under the start policy is at least this far from 0 and 1."""

DECIDED = 1e-9
"""A value so close to 0 or 1 leaves nothing to settle."""

EMBEDDING_WIDTH = 8


def make_world(config: WorldConfig) -> World:
    """Draw a world; the same config gives the same one.

    Raises:
        SettingError: it cannot be made.
    """
    check_world(config)
    rng = np.random.default_rng([config.seed, 20260611])
    value = np.zeros((config.tasks, config.nodes))
    value[:, 0] = _difficulties(config, rng)
    shape = (config.tasks, config.nodes - config.actions**config.depth)
    terminal, reward = np.zeros(value.shape, dtype=bool), np.zeros(value.shape)
    logits, sign = (
        np.zeros((*shape, config.actions)),
        np.zeros((*shape, config.actions), dtype=np.int8),
    )
    skill = np.zeros(shape, dtype=np.int32)
    band = _bands(value[:, 0], config, rng)
    for depth in range(config.depth):
        here, below = level(config, depth), level(config, depth + 1)
        size = value[:, here].shape
        last = (rng.random(size) < config.early) | (depth == config.depth - 1)
        matters = last | (rng.random(size) < config.informative)
        settled = np.where(last & (not config.graded), 1.0, np.where(matters, config.decides, 0.0))
        better, probability, after = _split(value[:, here], settled, config.actions, rng)
        logits[:, here] = np.log(probability)
        habit = np.where(rng.random(size) < config.consistency, 1, -1)[..., None]
        sign[:, here] = np.where(better, habit, -habit)
        skill[:, here] = (band[:, None] * config.depth + depth) * config.skills
        skill[:, here] += rng.integers(config.skills, size=size, dtype=np.int32)
        value[:, below] = after.reshape(config.tasks, -1)
        ends = np.repeat(last & ~terminal[:, here], config.actions, axis=1)
        terminal[:, below] = ends | np.repeat(terminal[:, here], config.actions, axis=1)
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


def _difficulties(config: WorldConfig, rng: np.random.Generator) -> Floats:
    """Success probabilities from a Beta distribution of the given mean and spread, [tasks]."""
    if config.spread == 0.0:
        return np.full(config.tasks, config.success)
    if config.spread == 1.0:
        return np.where(rng.random(config.tasks) < config.success, 1.0 - EDGE, EDGE)
    weight = 1.0 / config.spread - 1.0
    return np.clip(
        rng.beta(weight * config.success, weight * (1 - config.success), config.tasks),
        EDGE,
        1 - EDGE,
    )


def _split(
    value: Floats, settled: Floats, actions: int, rng: np.random.Generator
) -> tuple[NDArray[np.bool_], Floats, Floats]:
    """Actions of histories with these values: which are better, their probabilities, and the values after them.

    Args:
        value, settled: v and δ of the module's equations, [tasks, n].

    Returns:
        three arrays of shape [tasks, n, actions].
    """
    undecided = np.abs(value - 0.5) < 0.5 - DECIDED
    settled, v = np.where(undecided, settled, 0.0), np.where(undecided, value, 0.5)
    least, most = settled * v / (1 - v + settled * v), v / (v + settled * (1 - v))
    weight = least + (most - least) * rng.uniform(0.05, 0.95, value.shape)
    step = np.sqrt(settled * v * (1 - v))
    up, down = (
        value + step * np.sqrt((1 - weight) / weight),
        value - step * np.sqrt(weight / (1 - weight)),
    )
    rank = rng.random((*value.shape, actions)).argsort(axis=-1).argsort(axis=-1)
    better = rank < rng.integers(1, actions, size=value.shape)[..., None]
    share = rng.gamma(EVENNESS, size=better.shape) + 1e-9
    of_better = share * better / (share * better).sum(axis=-1, keepdims=True)
    of_worse = share * ~better / (share * ~better).sum(axis=-1, keepdims=True)
    probability = weight[..., None] * of_better + (1 - weight[..., None]) * of_worse
    after = np.where(better, up[..., None], down[..., None])
    return better, probability, np.clip(after, 0.0, 1.0)


def _bands(value: Floats, config: WorldConfig, rng: np.random.Generator) -> NDArray[np.int32]:
    """Band of each task, by the rank of its difficulty with as much noise added."""
    difficulty = _standard(value) + rng.normal(size=config.tasks)
    return (difficulty.argsort().argsort() * config.bands // config.tasks).astype(np.int32)


def _lengths(mean: int, config: WorldConfig, rng: np.random.Generator) -> NDArray[np.int64]:
    """Log-normal lengths of a given mean, [tasks, nodes], at least 1."""
    spread = config.token_spread
    of_task = rng.normal(0.0, spread, (config.tasks, 1))
    of_turn = rng.normal(0.0, spread, (config.tasks, config.nodes))
    return np.maximum(1, np.rint(mean * np.exp(of_task + of_turn - spread**2))).astype(np.int64)


def _embedding(value: Floats, config: WorldConfig, rng: np.random.Generator) -> Floats:
    direction = rng.normal(size=EMBEDDING_WIDTH)
    direction /= np.linalg.norm(direction)
    noise = config.embedding_noise * rng.normal(size=(config.tasks, EMBEDDING_WIDTH))
    return _standard(value)[:, None] * direction + noise


def _standard(value: Floats) -> Floats:
    """Logits of success probabilities, with mean 0 and standard deviation 1 over the tasks."""
    z = np.log(value / (1 - value))
    return (z - z.mean()) / max(float(z.std()), 1e-9)
