"""What tools/bench_train.py counts: operations, tokens, memory, and the trees it makes up."""

from dataclasses import astuple
from itertools import count
from typing import Any

import bench_memory
import bench_train_rows
import bench_train_trees
import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from megatron_trace.learning.rows import Row, rows_from_trees

HF: dict[str, Any] = {
    "model_type": "qwen3",
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 64,
    "max_position_embeddings": 128,
}


ROLLOUTS = count()
"""Every row is of another rollout."""


def row(length: int, learned: int = 0, advantage: float = 0.0, tree: int = 0) -> Row:
    learn = np.arange(length) >= length - learned
    return Row(
        tokens=np.zeros(length, dtype=np.int64),
        learn=learn,
        advantage=(learn * advantage).astype(np.float32),
        sampler_logprob=np.zeros(length, dtype=np.float32),
        predict=np.zeros(length, dtype=np.bool_),
        target=np.zeros(length, dtype=np.float32),
        turn=np.zeros(length, dtype=np.int64),
        rollout=next(ROLLOUTS),
        tree=tree,
    )


def wasted(lengths: list[int], tokens: int, ranks: int, layout: str) -> tuple[float, ...]:
    # All tokens are equal: those of a tree share as much as they can.
    rows = [row(length, tree=index // 2) for index, length in enumerate(lengths)]
    return astuple(bench_train_rows.waste(rows, tokens, ranks, layout))


def test_operations_are_those_that_pytorch_counts() -> None:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    length = 32
    model = Qwen3ForCausalLM(Qwen3Config(**HF, attn_implementation="eager"))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, length, dtype=torch.int64))
    heads = HF["num_attention_heads"] * HF["head_dim"]
    # Eager attention computes the hidden half of the score matrix too.
    hidden_half = HF["num_hidden_layers"] * 2 * heads * length * (length - 1)
    counted = counter.get_total_flops() - hidden_half
    assert bench_train_rows.model_flops(HF, [row(length, learned=length)]) == counted


def test_a_row_that_teaches_needs_twice_as_much_again_for_its_backward_pass() -> None:
    still, teaching = (
        bench_train_rows.model_flops(HF, [row(20, 5, advantage)]) for advantage in (0.0, 1.0)
    )
    assert teaching == 3 * still


def test_padding_is_counted_up_to_the_longest_row_of_a_micro_batch() -> None:
    lengths = [10, 40, 20, 30]
    # 40 and 30 in one micro-batch of 2 x 40 tokens, 20 and 10 in one of 2 x 20.
    assert wasted(lengths, 80, 1, "padded") == pytest.approx((120 / 100, 2, 1.0))
    assert wasted(lengths, 100, 1, "rows") == pytest.approx((1.0, 1, 1.0))
    # 40 and 10 on one rank, 30 and 20 on the other: 80 and 60 computed tokens.
    assert wasted(lengths, 80, 2, "padded") == pytest.approx((140 / 100, 1, 80 / 70))


def test_a_tree_computes_what_its_rows_share_once() -> None:
    # Rows of 10 and 40 tokens are a tree of 40, and those of 20 and 30 one of 30.
    assert wasted([10, 40, 20, 30], 100, 1, "tree") == pytest.approx((70 / 100, 1, 1.0))
    assert wasted([10, 40, 20, 30], 100, 2, "tree") == pytest.approx((70 / 100, 1, 40 / 35))


@pytest.mark.parametrize("seed", range(5))
def test_unique_tokens_are_the_different_beginnings_of_rows(seed: int) -> None:
    random = np.random.default_rng(seed)
    rows = [row(length) for length in random.integers(1, 9, 6)]
    for one in rows:
        one.tokens = random.integers(0, 2, len(one.tokens))
    beginnings = {
        tuple(one.tokens[: end + 1].tolist()) for one in rows for end in range(len(one.tokens))
    }
    assert bench_train_trees.unique_tokens(rows) == len(beginnings)


def test_made_up_trees_have_the_shapes_that_they_are_called_by() -> None:
    (tree,) = bench_train_trees.long_prompt(256)
    assert len(tree.turns[0].observation_ids) == 2000 and len(tree.leaves()) == 16
    (tree,) = bench_train_trees.deep(256)
    assert {len(tree.path(leaf)) for leaf in tree.leaves()} == {33}
    (tree,) = bench_train_trees.growing(256, 4)
    assert len(tree.leaves()) == 4
    trees = bench_train_trees.like_geo_hop(256)
    assert all(len(tree.leaves()) == 6 for tree in trees)
    for tree in trees:
        rows = rows_from_trees([tree])
        assert all(one.advantage.any() for one in rows)
        assert sum(int(one.learn.sum()) for one in rows) == sum(
            len(turn.action_ids) for turn in tree.turns
        )
    assert trees == bench_train_trees.like_geo_hop(256)


def test_peak_memory_is_what_is_held_at_a_time() -> None:
    def hold(megabytes: int) -> None:
        for _ in range(3):
            torch.ones(megabytes * 2**18)

    for megabytes in (256, 64):
        found = bench_memory.peak_bytes(lambda size=megabytes: hold(size)) / 2**20
        assert 0.9 * megabytes < found < 1.3 * megabytes
