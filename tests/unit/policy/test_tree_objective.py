"""Loss and gradients of packed trees are those of rows one by one, in float64.

A model of one layer of attention stands for the policy: what is compared is all that differs
between a tree and its rows, from the packing to the loss.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from torch import Tensor

from megatron_trace.config import (
    AdvantageConfig,
    Aggregation,
    Importance,
    LossConfig,
    Pack,
    Ratio,
)
from megatron_trace.learning.aggregation import row_weights
from megatron_trace.learning.batches import Batch, LossInputs, make_batches
from megatron_trace.learning.estimator import ESTIMATORS
from megatron_trace.learning.objective import objective
from megatron_trace.learning.packing import Layout, Packing, plan_pass
from megatron_trace.learning.rows import Row, rows_from_trees
from megatron_trace.policy.span_kernels import attend_by_span, gather_paths
from megatron_trace.policy.spans import described, spans_of
from megatron_trace.tree import ROOT, RolloutTree, Turn

VOCABULARY, WIDTH, LONGEST = 5, 4, 40
CPU = torch.device("cpu")
ADVANTAGES = sorted(ESTIMATORS.names())
EVERYTHING = LossConfig(reference_kl=0.1, entropy_bonus=0.05, dual_clip=3.0, sequence_mask=0.5)


def ids(draw: st.DrawFn, most: int) -> list[int]:
    """Tokens of so small a vocabulary that many siblings begin alike."""
    return draw(st.lists(st.integers(0, 2), min_size=1, max_size=most))


@st.composite
def alike_trees(draw: st.DrawFn) -> RolloutTree:
    """A tree whose siblings begin alike, in actions or observations, with turns of one token too."""
    tree = RolloutTree.from_prompt({"id": "t"}, [3, *ids(draw, 3)], prediction=0.5, state={})
    for _ in range(draw(st.integers(1, 5))):
        anchors = [index for index, turn in enumerate(tree.turns) if not turn.terminal]
        anchor = draw(st.sampled_from([ROOT, *anchors]))
        turns = []
        count = draw(st.integers(1, 3))
        for number in range(count):
            action, last = ids(draw, 3), number == count - 1
            turns.append(
                Turn(
                    parent=-1,
                    action_ids=action,
                    logprobs=[-0.5 - 0.1 * len(turns)] * len(action),
                    versions=[0] * len(action),
                    observation_ids=[] if last else ids(draw, 2),
                    prediction=None if last else 0.5,
                    terminal=last,
                    reward=draw(st.sampled_from([0.0, 1.0])) if last else 0.0,
                    state=None if last else {},
                )
            )
        tree.graft(anchor, turns)
    return tree


def parameters() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"token": (VOCABULARY, WIDTH), "position": (LONGEST, WIDTH)}
    shapes |= {name: (WIDTH, WIDTH) for name in ("query", "key", "value")}
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
        for name, shape in shapes.items()
    }


def states(model: dict[str, Tensor], batch: Batch) -> Tensor:
    """The hidden state of every token of the batch, [s, width]."""
    inputs = model["token"][batch.tokens[0]] + model["position"][batch.position]
    query, key, value = (
        (inputs @ model[name])[:, None, None] for name in ("query", "key", "value")
    )
    spans = spans_of(described(batch.starts, batch.shared), 0, 1, CPU)
    keys, values = gather_paths(key, spans), gather_paths(value, spans)
    return inputs + attend_by_span(query.squeeze(1), keys, values, spans).flatten(1)


def learn(
    rows: list[Row], packing: Packing, settings: LossConfig
) -> tuple[float, dict[str, Tensor], dict[int, Tensor]]:
    """The loss of an update, its gradients, and each row's states at its anchors."""
    random = np.random.default_rng(0)
    old, reference = (
        [-1.5 + 0.4 * random.normal(size=len(row.tokens)).astype(np.float32) for row in rows]
        for _ in range(2)
    )
    weights = row_weights(rows, range(len(rows)), settings)
    planned = plan_pass(rows, range(len(rows)), Layout(packing), backward=True)
    model, total, anchors = parameters(), 0.0, {}
    for batch in make_batches(rows, planned, LossInputs(weights, old, reference)):
        hidden = states(model, batch)
        logs = (hidden[batch.score_at] @ model["token"].T).log_softmax(-1)
        logprob = logs.gather(1, batch.scored[:, None])[:, 0]
        entropy = -(logs.exp() * logs).sum(-1)
        loss, _ = objective(settings, batch.data, logprob[batch.term], entropy[batch.term])
        if loss.requires_grad:
            loss.backward()
        total += float(loss.detach())
        anchors.update(by_row(batch, rows, hidden.detach()))
    return total, {name: value.grad for name, value in model.items()}, anchors


def by_row(batch: Batch, rows: list[Row], hidden: Tensor) -> Iterator[tuple[int, Tensor]]:
    counts = [int(rows[index].predict.sum()) for index in batch.rows]
    yield from zip(batch.rows, hidden[batch.predict_at].split(counts), strict=True)


def assert_trees_teach_what_rows_do(
    trees: list[RolloutTree], credit: AdvantageConfig, settings: LossConfig
) -> None:
    rows = rows_from_trees(trees, credit, longest=LONGEST)
    loss, gradients, anchors = learn(rows, Packing(capacity=999, pack=Pack.rows), settings)
    longest = max(len(row.tokens) for row in rows)
    for packing in (
        Packing(capacity=999),
        Packing(capacity=999, merge=False, total_multiple=16),
        Packing(capacity=longest),
        Packing(capacity=2 * longest, total_multiple=longest),
    ):
        other, theirs, seen = learn(rows, packing, settings)
        assert other == pytest.approx(loss, rel=1e-9, abs=1e-9)
        for name, gradient in gradients.items():
            assert (gradient is None) == (theirs[name] is None), name
            if gradient is not None:
                torch.testing.assert_close(theirs[name], gradient, rtol=1e-9, atol=1e-9)
        for index, states_there in anchors.items():
            torch.testing.assert_close(seen[index], states_there)


TREES = st.lists(alike_trees(), min_size=1, max_size=2)
few = budget(max_examples=6)
"""Few, because each example is five updates, and there are examples for every parameter."""


@pytest.mark.parametrize("ratio", Ratio)
@pytest.mark.parametrize("aggregation", Aggregation)
@few
@given(TREES)
def test_with_every_ratio_and_mean(
    ratio: Ratio, aggregation: Aggregation, trees: list[RolloutTree]
) -> None:
    settings = replace(EVERYTHING, ratio=ratio, aggregation=aggregation, dr_grpo_tokens=7)
    assert_trees_teach_what_rows_do(trees, AdvantageConfig(), settings)


@pytest.mark.parametrize("name", ADVANTAGES)
@few
@given(TREES, st.booleans(), st.sampled_from([0, 30]))
def test_with_every_advantage(
    name: str, trees: list[RolloutTree], filtered: bool, buffer: int
) -> None:
    credit = AdvantageConfig(name=name, filter_groups=filtered, overlong_buffer=buffer)
    assert_trees_teach_what_rows_do(trees, credit, LossConfig())


@pytest.mark.parametrize("importance", Importance)
@few
@given(TREES)
def test_with_every_importance_weight(importance: Importance, trees: list[RolloutTree]) -> None:
    settings = replace(EVERYTHING, importance=importance, importance_floor=0.5)
    assert_trees_teach_what_rows_do(trees, AdvantageConfig(), settings)
