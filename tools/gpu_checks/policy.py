"""The policy on this device, in every precision, against the CPU's numbers."""

import functools
from collections.abc import Iterator
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from gpu_checks.check import Context, Skip, require
from gpu_checks.cpu_numbers import end_of, model_of, reference
from gpu_checks.model import NUMBERS, tensors
from gpu_checks.training import (
    BF16,
    FLOAT32,
    FP8,
    Numbers,
    Tolerance,
    compare,
    forget_policies,
    learning,
    make_trees,
    scored,
    scores,
    settings,
    some_rows,
    train,
)
from megatron_trace.check.devices import check_devices
from megatron_trace.config import SettingError
from megatron_trace.models import transformer_engine
from megatron_trace.policy.manifest import write_manifest, written_checksums
from megatron_trace.policy.policy import Policy
from megatron_trace.policy.precision import has_transformer_engine

MOST_OFF_STEP = 0.05
"""Of the length of two updates. Adam divides by the gradient's size, so where a gradient is nearly 0
its rounding decides the direction of a step.
"""

SAME_STEP = 0.01
"""Relative. Kernels that add in no fixed order change the last bits."""


def float32(context: Context) -> str:
    """float32, with Megatron's own layers."""
    return compare(reference(context), numbers(context, "precision.train=float32"), FLOAT32)


def optimizer_step(context: Context) -> str:
    """The weights after two updates, of an export."""
    reference(context)
    numbers(context, "precision.train=float32")
    start, right = tensors(model_of(context)), tensors(end_of(context))
    found = tensors(context.work / "float32_end")
    require(found.keys() == right.keys(), "other tensors than the CPU's were exported")
    step = length(right[name] - start[name] for name in right)
    off = length(found[name] - right[name] for name in right)
    text = f"two updates end {off / step:.1%} of their length beside the CPU's"
    require(step > 0 and off <= MOST_OFF_STEP * step, text)
    return text


def bf16(context: Context) -> str:
    """bf16 over float32 main weights, with Megatron's own layers."""
    return compare(reference(context), without_transformer_engine(context), BF16)


def bf16_transformer_engine(context: Context) -> str:
    """bf16 with Transformer Engine's layers, against Megatron's."""
    need_transformer_engine()
    found = numbers(context, "precision.train=bf16")
    return compare(without_transformer_engine(context), found, BF16)


def fp8_tensorwise(context: Context) -> str:
    """FP8 with one scale for each tensor, from its present values."""
    return fp8(context, "tensorwise")


def fp8_blockwise(context: Context) -> str:
    """FP8 with a scale for each block of values."""
    return fp8(context, "blockwise")


def fp8_delayed(context: Context) -> str:
    """FP8 with one scale for each tensor, from the steps before."""
    return fp8(context, "delayed")


def fp8_mxfp8(context: Context) -> str:
    """FP8 with a scale for each 32 values, which Blackwell has in hardware."""
    return fp8(context, "mxfp8")


def fp8(context: Context, recipe: str) -> str:
    """FP8 against bf16."""
    chosen = fp8_settings(context, recipe)
    return compare(numbers(context, "precision.train=bf16"), numbers(context, *chosen), FP8)


def fp8_settings(context: Context, recipe: str) -> list[str]:
    """Settings for FP8.

    Raises:
        Skip: this machine cannot train so.
    """
    chosen = ["precision.train=fp8", f"precision.fp8_recipe={recipe}"]
    try:
        check_devices(settings(model_of(context), *chosen))
    except SettingError as error:
        raise Skip(str(error)) from None
    return chosen


def packed_rows(context: Context) -> str:
    """A row scores the same beside other rows and alone."""
    reference(context)
    rows = some_rows(NUMBERS[context.device].vocabulary)
    policy = Policy(settings(model_of(context), "precision.train=bf16"))
    together = scored(policy, rows)
    parts = [scored(policy, [row]) for row in rows]
    alone = Numbers(
        np.concatenate([part.logprobs for part in parts]),
        np.concatenate([part.predictions for part in parts]),
        updates=[],
    )
    # Other shapes take other kernels, which round otherwise; another row's tokens change all.
    return "off by " + scores(alone, together, BF16)


def packed_trees(context: Context) -> str:
    """Rows learn the same whether the tokens that they share are computed once or for each."""
    return trees_and_rows(context, BF16, "precision.train=bf16")


def fp8_packed_trees(context: Context) -> str:
    """The same in FP8, whose scales depend on what is computed together."""
    return trees_and_rows(context, FP8, *fp8_settings(context, "tensorwise"))


def trees_and_rows(context: Context, most: Tolerance, *changed: str) -> str:
    """Numbers of packed trees against those of the same rows."""
    reference(context)
    rows = make_trees(NUMBERS[context.device].vocabulary, trees=3, prompt=120, leaves=6, turn=40)
    pack = "learning.batching.pack="
    alone = train(settings(model_of(context), *changed, f"{pack}rows"), rows)
    together = train(settings(model_of(context), *changed, f"{pack}tree"), rows)
    share = together.updates[0]["computed_tokens"] / alone.updates[0]["computed_tokens"]
    return f"{share:.0%} of the tokens computed, {compare(alone, together, most)}"


def checkpoint(context: Context) -> str:
    """A checkpoint of bf16."""
    return checkpoint_of(context, "precision.train=bf16")


def fp8_checkpoint(context: Context) -> str:
    """A checkpoint of the one recipe that keeps statistics in it."""
    return checkpoint_of(context, *fp8_settings(context, "delayed"))


def checkpoint_of(context: Context, *changed: str) -> str:
    """A policy that continues from a checkpoint takes the same step as the one that wrote it."""
    reference(context)
    rows = some_rows(NUMBERS[context.device].vocabulary)
    config = settings(model_of(context), *changed)
    folder = context.work / "-".join(["checkpoint", *changed]).replace("=", "_")
    folder.mkdir()
    writer = Policy(config)
    writer.update(rows)
    writer.begin_checkpoint(folder)
    problem = writer.finish_checkpoint(wait=True)
    require(problem == "", f"the checkpoint is not complete: {problem}")
    write_manifest(folder, written_checksums(folder))
    damage = writer.verify_checkpoint(folder)
    require(damage == "", f"the checkpoint is damaged: {damage}")
    right = writer.update(rows)
    del writer
    forget_policies()
    reader = Policy(config)
    reader.load_checkpoint(folder, updates=1)
    found = reader.update(rows)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    off = learning([right], [found], SAME_STEP)
    return f"{size / 1e6:.0f} MB; the next step is off by {off}"


@functools.cache
def numbers(context: Context, *changed: str) -> Numbers:
    """This device's numbers with these settings."""
    reference(context)
    rows = some_rows(NUMBERS[context.device].vocabulary)
    end = context.work / "float32_end" if "precision.train=float32" in changed else None
    return train(settings(model_of(context), *changed), rows, end)


@functools.cache
def without_transformer_engine(context: Context) -> Numbers:
    """bf16's numbers with Megatron's own layers, whatever is installed."""
    with mock.patch.object(transformer_engine, "import_problem", return_value="not wanted here"):
        reference(context)
        rows = some_rows(NUMBERS[context.device].vocabulary)
        return train(settings(model_of(context), "precision.train=bf16"), rows)


def need_transformer_engine() -> None:
    """Import Transformer Engine.

    Raises:
        Skip: there is no CUDA device for it.
        Wrong: it is installed and cannot be imported.
    """
    if not torch.cuda.is_available():
        raise Skip("needs a CUDA device")
    problem = transformer_engine.import_problem()
    require(problem == "", problem)
    require(has_transformer_engine(), "Transformer Engine imports, but the policy does not use it")


def length(differences: Iterator[Tensor]) -> float:
    """The Euclidean length of all differences together."""
    return sum(float(tensor.double().square().sum()) for tensor in differences) ** 0.5
