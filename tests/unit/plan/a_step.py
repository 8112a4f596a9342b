"""What a train rank holds and saves while it learns a full micro-batch, and what the plan says."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from megatron_trace.check.command import read_model_config
from megatron_trace.learning.rows import Row
from megatron_trace.plan.activations import activations
from megatron_trace.plan.layer_bytes import Kernels
from megatron_trace.plan.layout import Layout
from megatron_trace.plan.reach import Reach
from megatron_trace.plan.shape import Shape

TOKENS, LEARNED = 512, 0.75


def rows() -> list[Row]:
    """Rows that fill a micro-batch, three quarters of them sampled tokens."""
    generator, count = np.random.default_rng(0), 4
    length = TOKENS // count
    return [
        Row(
            tokens=generator.integers(0, 2000, length),
            learn=np.arange(length) >= length * (1 - LEARNED),
            predict=np.arange(length) == 20,
            advantage=np.ones(length, np.float32),
            sampler_logprob=np.full(length, -1.0, np.float32),
            target=np.zeros(length, np.float32),
            turn=np.zeros(length, np.int64),
            rollout=number,
            tree=number,
        )
        for number in range(count)
    ]


def trees() -> list[Row]:
    """A tree that fills a micro-batch: a trunk of 128 tokens, and twelve branches of 32."""
    generator = np.random.default_rng(0)
    trunk, branch, branches = 128, 32, 12
    shared, length = generator.integers(0, 2000, trunk), trunk + branch
    return [
        Row(
            tokens=np.concatenate([shared, generator.integers(0, 2000, branch)]),
            learn=np.arange(length) >= trunk,
            predict=np.arange(length) == 20,
            advantage=np.ones(length, np.float32),
            sampler_logprob=np.full(length, -1.0, np.float32),
            target=np.zeros(length, np.float32),
            turn=np.repeat([0, number], [trunk, branch]),
            rollout=number,
            tree=0,
        )
        for number in range(1, branches + 1)
    ]


TREES = Reach(keys=3.75)
"""Of `trees()`: 12 · 160 keys for 512 tokens that are computed."""


def storages(tensors: Any) -> dict[int, int]:
    """Bytes of each memory block that `tensors` lie in."""
    return {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for tensor in tensors
        if tensor is not None
    }


def saved_and_planned(
    config: Any,
    policy: Any,
    *,
    batch: Sequence[Row] = (),
    reach: Reach | None = None,
    fused: bool = False,
) -> tuple[float, float]:
    """Bytes that autograd has saved when the forward pass of a full micro-batch ends, and what the
    plan says.
    """
    known = storages(parameter for part in policy._chunks for parameter in part.parameters())
    saved: dict[int, torch.Tensor] = {}
    bytes_saved = 0

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if not bytes_saved and tensor.untyped_storage().data_ptr() not in known:
            saved[tensor.untyped_storage().data_ptr()] = (
                tensor  # held, so that its place is not used again
            )
        return tensor

    def give(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal bytes_saved
        # The first tensor is given back when the backward pass begins. Later sums would include
        # what recomputation brings back for a while.
        if not bytes_saved:
            bytes_saved = sum(storages(saved.values()).values())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, give):
        policy.update(batch or rows())
    plan = activations(
        Shape.of(read_model_config(config.model.path)),
        Layout.of(config, 1),
        config,
        0,
        micro_batches=1,
        learned_share=LEARNED,
        reach=reach,
        kernels=replace(Kernels.of(config, "cpu"), fused_swiglu=fused),
        recomputed=False,
    )
    return bytes_saved, plan.layers + plan.output
