"""What tools/bench_train.py counts: operations, padding, and the rows it makes up."""

from dataclasses import astuple
from typing import Any

import bench_train_rows
import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from megatron_trace.learning.rows import Row

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


def row(length: int, learned: int, advantage: float = 0.0) -> Row:
    learn = np.arange(length) >= length - learned
    return Row(
        tokens=np.zeros(length, dtype=np.int64),
        learn=learn,
        advantage=(learn * advantage).astype(np.float32),
        sampler_logprob=np.zeros(length, dtype=np.float32),
        predict=np.zeros(length, dtype=np.bool_),
        target=np.zeros(length, dtype=np.float32),
        turn=np.zeros(length, dtype=np.int64),
    )


def wasted(lengths: list[int], tokens: int, ranks: int, *, packed: bool) -> tuple[float, ...]:
    return astuple(bench_train_rows.waste(lengths, tokens, ranks, packed=packed))


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
    assert wasted(lengths, 80, 1, packed=False) == pytest.approx((1 - 100 / 120, 2, 1.0))
    assert wasted(lengths, 100, 1, packed=True) == pytest.approx((0.0, 1, 1.0))
    # 40 and 10 on one rank, 30 and 20 on the other: 80 and 60 computed tokens.
    assert wasted(lengths, 80, 2, packed=False) == pytest.approx((1 - 100 / 140, 1, 80 / 70))


def test_made_up_rows_are_rollouts() -> None:
    rows = bench_train_rows.made_up_rows(64, vocabulary=256)
    for one in rows:
        assert not one.learn[0]
        assert one.predict.any() and not (one.predict & one.learn).any()
        assert one.tokens.max() < 256
        assert (
            len({len(getattr(one, name)) for name in ("tokens", "learn", "advantage", "target")})
            == 1
        )
    assert {bool(one.advantage.any()) for one in rows} == {True, False}
    assert 30 < min(len(one.tokens) for one in rows) < max(len(one.tokens) for one in rows) < 400
    again = bench_train_rows.made_up_rows(64, vocabulary=256)
    assert all(
        np.array_equal(one.tokens, other.tokens) for one, other in zip(rows, again, strict=True)
    )
