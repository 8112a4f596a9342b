"""The trees of tools/bench_train.py: those of a run, or made up."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.random import Generator

from megatron_trace.learning.rows import Row
from megatron_trace.tree import ROOT, RolloutTree, Turn, load_trees

Shape = Sequence[tuple[int, int]]
"""Tokens of the action and of the observation of every turn of a rollout."""

LEAVES = (2, 4, 8, 16, 32, 64)
"""Rollouts of the growing tree."""


def saved_trees(run: Path) -> list[RolloutTree]:
    """The trees of the last step that a run has saved.

    Raises:
        SystemExit: there are none.
    """
    files = sorted(run.glob("trees/step_*.jsonl.gz"))
    if not files:
        raise SystemExit(f"{run} holds no trees/step_*.jsonl.gz; name a run's folder")
    return load_trees(files[-1])


@dataclass
class Forest:
    """Makes up trees of random tokens, the same for the same seed.

    Attributes:
        vocabulary: tokens are below it.
    """

    random: Generator
    vocabulary: int

    def tree(self, prompt: int) -> RolloutTree:
        """A tree of only its root, with a prompt of `prompt` tokens."""
        return RolloutTree.from_prompt(
            {"id": "made up"}, self._ids(prompt), prediction=0.5, state={}
        )

    def grow(self, tree: RolloutTree, anchor: int, shape: Shape) -> None:
        """Graft a rollout; each second one of a tree succeeds."""
        turns = [self._turn(*tokens) for tokens in shape]
        turns[-1].observation_ids, turns[-1].terminal, turns[-1].state = [], True, None
        turns[-1].reward = float(len(tree.rollouts) % 2)
        tree.graft(anchor, turns)

    def _turn(self, action: int, observation: int) -> Turn:
        ids, logprobs, versions = self._ids(action), [-1.0] * action, [0] * action
        return Turn(-1, ids, logprobs, versions, self._ids(observation), prediction=0.5, state={})

    def _ids(self, count: int) -> list[int]:
        return self.random.integers(0, self.vocabulary, count).tolist()


def like_geo_hop(vocabulary: int, trees: int = 24) -> list[RolloutTree]:
    """Four rollouts of two to five turns from each root, and two continuations."""
    random = np.random.default_rng(0)
    forest, result = Forest(random, vocabulary), []
    for _ in range(trees):
        tree = forest.tree(int(random.integers(20, 35)))
        for _ in range(4):
            forest.grow(tree, ROOT, _short_turns(random, 2, 6))
        for anchor in random.choice(tree.prefixes(), 2):
            forest.grow(tree, int(anchor), _short_turns(random, 1, 4))
        result.append(tree)
    return result


def _short_turns(random: Generator, fewest: int, below: int) -> Shape:
    count = random.integers(fewest, below)
    return [(int(random.integers(8, 22)), int(random.integers(15, 45))) for _ in range(count)]


def long_prompt(vocabulary: int, *, prompt: int = 2000, leaves: int = 16) -> list[RolloutTree]:
    """Rollouts of three turns from one long prompt."""
    forest = Forest(np.random.default_rng(0), vocabulary)
    tree = forest.tree(prompt)
    for _ in range(leaves):
        forest.grow(tree, ROOT, [(20, 30)] * 3)
    return [tree]


def deep(vocabulary: int, *, turns: int = 32, every: int = 4) -> list[RolloutTree]:
    """One rollout of many turns; each `every`-th turn is continued once, to the same depth."""
    forest = Forest(np.random.default_rng(0), vocabulary)
    tree = forest.tree(30)
    forest.grow(tree, ROOT, [(20, 30)] * turns)
    # Turn n of the first rollout is number n of the tree, whose root is number 0.
    for anchor in range(every, turns, every):
        forest.grow(tree, anchor, [(20, 30)] * (turns - anchor))
    return [tree]


def growing(vocabulary: int, leaves: int) -> list[RolloutTree]:
    """A trunk of 1,000 tokens with `leaves` leaves."""
    return long_prompt(vocabulary, prompt=1000, leaves=leaves)


def path_tokens(rows: Iterable[Row]) -> int:
    """Tokens of all rows together."""
    return sum(len(row.tokens) for row in rows)


def unique_tokens(rows: Iterable[Row]) -> int:
    """Tokens of one tree's rows, those of equal beginnings counted once."""
    ordered = sorted(row.tokens.tolist() for row in rows)
    total = sum(map(len, ordered))
    # In sorted order each row has its longest common beginning with the row before it.
    for before, after in pairwise(ordered):
        total -= _common(before, after)
    return total


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    for number, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return number
    return min(len(one), len(other))
