"""What the rollouts of a tree tell about an anchor: rewards by their distance from it.

A rollout that was sampled through the anchor, from the anchor or above it, is an outcome of the
anchor: its distance ℓ is 0. Any other tells less the further away it was sampled. ℓ counts the
turns from the anchor up to where the two paths part, and from there down to the turn that the
rollout was sampled from. Such a rollout counts γ^ℓ.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from megatron_trace.tree import RolloutTree

Floats = NDArray[np.float64]

FARTHEST = 8
"""Largest distance: a rollout that is further away counts as if it were at this one."""


class Paths(NamedTuple):
    """The rollouts of a tree, in the order in which they ended.

    Attributes:
        turns: of each rollout the turns from the root to its leaf.
        anchor: depth of the turn that each was sampled from, [rollouts].
        reward: [rollouts].
    """

    turns: list[list[int]]
    anchor: NDArray[np.int64]
    reward: Floats


def paths(tree: RolloutTree) -> Paths:
    """The rollouts of `tree`."""
    leaf_of = {tree.turns[leaf].rollout: leaf for leaf in tree.leaves()}
    leaves = [leaf_of[number] for number in range(len(tree.rollouts))]
    turns = [tree.path(leaf) for leaf in leaves]
    depth = [len(tree.path(rollout.anchor)) - 1 for rollout in tree.rollouts]
    reward = [tree.turns[leaf].reward for leaf in leaves]
    return Paths(turns, np.array(depth, dtype=np.int64), np.array(reward, dtype=np.float64))


def distances(found: Paths, path: list[int]) -> NDArray[np.int64]:
    """ℓ of every rollout to every turn of `path`, [rollouts, turns of the path]; at most FARTHEST.

    Args:
        path: turns from the root to some turn of the same tree.
    """
    depth = np.arange(len(path))
    # Depth of the last turn that a rollout shares with the path.
    shared = np.array([_common(turns, path) for turns in found.turns], dtype=np.int64)[:, None]
    up = np.maximum(depth - shared, 0)
    down = np.maximum(found.anchor[:, None] - np.minimum(depth, shared), 0)
    return np.minimum(up + down, FARTHEST)


def _common(one: list[int], other: list[int]) -> int:
    """Depth of the last turn that two paths share; the root, at least."""
    depth = 0
    for mine, its in zip(one, other, strict=False):
        if mine != its:
            break
        depth += 1
    return depth - 1


def counts(distance: NDArray[np.int64], reward: Floats) -> Floats:
    """Successes and failures at each distance, [..., 2, FARTHEST + 1].

    Args:
        distance: [rollouts, ...].
        reward: [rollouts].
    """
    at = distance[..., None] == np.arange(FARTHEST + 1)
    return np.stack(
        [np.tensordot(reward, at, axes=(0, 0)), np.tensordot(1 - reward, at, axes=(0, 0))], axis=-2
    )


def weights(decay: float) -> Floats:
    """γ^ℓ, [FARTHEST + 1]."""
    return np.power(float(decay), np.arange(FARTHEST + 1, dtype=np.float64))
