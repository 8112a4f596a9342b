"""A rank's spans see what the paths of its tokens hold, and stock kernels attend so."""

from itertools import pairwise
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from megatron_trace.config import Pack
from megatron_trace.learning.batches import make_batch
from megatron_trace.learning.packing import Packing, lay_out
from megatron_trace.learning.rows import Row
from megatron_trace.learning.runs import paths, trees_of
from megatron_trace.policy import span_kernels
from megatron_trace.policy.context import gathered_order, own_tokens
from megatron_trace.policy.span_kernels import attend_by_span, gather_paths
from megatron_trace.policy.spans import Spans, described, spans_of
from tests.unit.learning.some_rows import token_trees

CPU = torch.device("cpu")
SIZES = st.sampled_from([1, 2, 4])
HEADS, KEY_HEADS, WIDTH = 4, 2, 8


def packed(rows: list[Row], multiple: int) -> tuple[list[int], list[int]]:
    """Starts and shared tokens of a micro-batch of all rows."""
    trees = trees_of(rows, range(len(rows)), Pack.tree, merge=True)
    packing = Packing(capacity=9999, total_multiple=multiple)
    batch = make_batch(rows, lay_out([run for tree in trees for run in tree], packing))
    return batch.starts, batch.shared


def seen_by_token(starts: list[int], shared: list[int]) -> dict[int, list[int]]:
    """For every token of the sequence the tokens it attends to, from the root to itself."""
    seen = {}
    for path in paths(starts, shared):
        for depth, token in enumerate(path.tolist()):
            seen[token] = path[: depth + 1].tolist()
    return seen


@given(token_trees(), SIZES)
def test_every_rank_s_tokens_see_their_paths_and_nothing_else(rows: list[Row], size: int) -> None:
    starts, shared = packed(rows, 2 * size)
    expected, total = seen_by_token(starts, shared), starts[-1]
    # Of a key among those of all ranks: which token it is.
    token_of = torch.empty(total, dtype=torch.int64)
    token_of[gathered_order(total, size)] = torch.arange(total)
    for rank in range(size):
        spans = spans_of(described(starts, shared), rank, size, CPU)
        path = torch.arange(total) if spans.path is None else spans.path
        own = own_tokens(total, rank, size).split(spans.queries)
        for tokens, keys in zip(own, path.split(spans.keys), strict=True):
            found = token_of[keys].tolist()
            for number, token in enumerate(reversed(tokens.tolist())):
                assert found[: len(found) - number] == expected[token]
        assert spans.query_bounds.diff().tolist() == list(spans.queries)
        assert spans.key_bounds.diff().tolist() == list(spans.keys)


def test_rows_that_share_nothing_are_not_gathered() -> None:
    spans = spans_of(described([0, 3, 7], [0, 0]), 0, 1, CPU)
    assert spans == Spans((3, 4), (3, 4), None, CPU)


def reference(query: Tensor, key: Tensor, value: Tensor, seen: dict[int, list[int]]) -> Tensor:
    """softmax(q·kᵀ / √width)·v over each token's path, in float64."""
    repeat = HEADS // KEY_HEADS
    key, value = key.repeat_interleave(repeat, 2)[:, 0], value.repeat_interleave(repeat, 2)[:, 0]
    mixed = []
    for token in range(len(query)):
        k, v = key[seen[token]], value[seen[token]]
        weights = (torch.einsum("hw,khw->hk", query[token, 0], k) / WIDTH**0.5).softmax(-1)
        mixed.append(torch.einsum("hk,khw->hw", weights, v))
    return torch.stack(mixed)


@given(token_trees(), SIZES, st.sampled_from([1, 2, 3, 256]), st.integers(0, 99))
def test_attention_over_a_tree_is_attention_over_each_path(
    rows: list[Row], size: int, block: int, seed: int
) -> None:
    starts, shared = packed(rows, 2 * size)
    generator, total = torch.Generator().manual_seed(seed), starts[-1]
    inputs = [
        torch.randn(total, 1, heads, WIDTH, generator=generator, dtype=torch.float64)
        for heads in (HEADS, KEY_HEADS, KEY_HEADS)
    ]
    scale = torch.randn(total, HEADS, WIDTH, generator=generator, dtype=torch.float64)
    exact_inputs = [tensor.clone().requires_grad_() for tensor in inputs]
    exact = reference(*exact_inputs, seen_by_token(starts, shared))
    (exact * scale).sum().backward()
    # The ranks one after another: their keys in the order in which they are gathered.
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    query, key, value = leaves
    parts = [own_tokens(total, rank, size) for rank in range(size)]
    together = torch.cat(parts)
    loss = torch.zeros((), dtype=torch.float64)
    for rank, own in enumerate(parts):
        spans = spans_of(described(starts, shared), rank, size, CPU)
        keys, values = (gather_paths(tensor[together], spans) for tensor in (key, value))
        with patch.object(span_kernels, "BLOCK", block):
            mixed = attend_by_span(query[own].squeeze(1), keys, values, spans)
        torch.testing.assert_close(mixed, exact[own])
        loss = loss + (mixed * scale[own]).sum()
    loss.backward()
    for leaf, right in zip(leaves, exact_inputs, strict=True):
        torch.testing.assert_close(leaf.grad, right.grad)


@pytest.mark.parametrize("rows", [2, 40])
def test_a_shared_key_s_gradient_is_summed_in_float32(rows: int) -> None:
    starts, shared = [0, *range(2, 2 + rows)], [0, *[1] * (rows - 1)]
    spans = spans_of(described(starts, shared), 0, 1, CPU)
    key = torch.ones(starts[-1], 1, 1, 4, dtype=torch.bfloat16, requires_grad=True)
    gathered = gather_paths(key, spans)
    gradient = torch.full_like(gathered, 2**-9)
    gradient[0] = 1.0
    gathered.backward(gradient)
    # In bf16 each 2^-9 would vanish beside the 1.
    assert key.grad is not None
    exact = torch.tensor(1 + (rows - 1) * 2**-9).bfloat16()
    assert key.grad[0, 0, 0, 0] == exact


def test_all_spans_of_all_layers_share_one_mask() -> None:
    spans = spans_of(described([0, 500, 600, 900], [0, 400, 400]), 0, 1, CPU)
    query = torch.randn(900, HEADS, WIDTH, requires_grad=True)
    key, value = (
        torch.randn(sum(spans.keys), KEY_HEADS, WIDTH, requires_grad=True) for _ in range(2)
    )
    saved: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    def bytes_saved() -> int:
        return sum(tensor.untyped_storage().nbytes() for tensor in saved.values())

    layers = []
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layers.append(attend_by_span(query, key, value, spans))
        one_layer = bytes_saved()
        layers.append(attend_by_span(query, key, value, spans))
    # Of a second layer with the same inputs: its output, and a number for each query and head.
    assert bytes_saved() - one_layer == 900 * HEADS * (WIDTH + 1) * 4


@given(st.lists(st.integers(0, 3), min_size=1, max_size=4))
def test_runs_of_no_token_make_no_span(lengths: list[int]) -> None:
    starts = np.cumsum([0, 4, *lengths]).tolist()
    spans = spans_of(described(starts, [0, *[4] * len(lengths)]), 0, 1, CPU)
    assert list(spans.queries) == [end - start for start, end in pairwise(starts) if end > start]
