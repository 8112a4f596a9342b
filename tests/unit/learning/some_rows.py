"""Rows for the tests of packing: of given tokens, and random trees of them."""

from collections.abc import Sequence
from itertools import count

import numpy as np
from hypothesis import strategies as st

from megatron_trace.learning.rows import Row

ROLLOUTS = count()
"""Every row is of another rollout."""


def row_of(tokens: Sequence[int], *, tree: int = 0, seed: int = 0) -> Row:
    """A row of these tokens that learns and predicts at random places, also within what it shares."""
    length, random = len(tokens), np.random.default_rng([seed, len(tokens)])
    learn, predict = random.random(length) < 0.5, random.random(length) < 0.3
    learn[0] = False
    floats = random.normal(size=(3, length)).astype(np.float32)
    return Row(
        tokens=np.array(tokens, dtype=np.int64),
        learn=learn,
        advantage=np.where(learn, floats[0], 0),
        sampler_logprob=np.where(learn, floats[1], 0),
        predict=predict,
        target=np.where(predict, floats[2], 0),
        # Rows of one tree that begin with equal tokens have their first turn in common.
        turn=np.where(np.arange(length) < 1, 0, 1 + seed),
        rollout=next(ROLLOUTS),
        tree=tree,
    )


@st.composite
def token_trees(draw: st.DrawFn, most_rows: int = 7, most_tokens: int = 9) -> list[Row]:
    """Rows of a few trees over so few tokens that many begin alike, end in another, or are equal."""
    lengths = st.integers(1, most_tokens)
    rows = []
    for seed in range(draw(st.integers(1, most_rows))):
        tokens = draw(
            lengths.flatmap(lambda n: st.lists(st.integers(0, 2), min_size=n, max_size=n))
        )
        rows.append(row_of([7, *tokens], tree=draw(st.integers(0, 2)), seed=seed))
    return rows
