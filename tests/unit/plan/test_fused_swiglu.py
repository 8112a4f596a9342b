"""SwiGLU as one function, as GPUs compute it: what it saves, and that it learns the same."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

import megatron_trace.policy.model as policy_model
from tests.unit.plan.a_step import rows, saved_and_planned


@pytest.fixture
def fuse_swiglu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Has policies made from here on compute SwiGLU as on GPUs, though without compiling it."""
    transformer_config = policy_model.transformer_config

    def fused(*args: Any) -> Any:
        return replace(transformer_config(*args), bias_activation_fusion=True)

    with torch.compiler.set_stance("force_eager"):
        yield lambda: monkeypatch.setattr(policy_model, "transformer_config", fused)


@pytest.mark.parametrize("modules", ["[mlp]", None])
def test_a_fused_swiglu_saves_its_input_alone(start_policy, fuse_swiglu, modules) -> None:
    fuse_swiglu()
    recompute = (
        ["recompute.granularity=selective", f"recompute.modules={modules}"] if modules else []
    )
    saved, planned = saved_and_planned(*start_policy(*recompute), fused=True)
    assert planned == pytest.approx(saved, rel=0.03)


def test_so_does_that_of_experts(start_policy, fuse_swiglu, sparse_model) -> None:
    fuse_swiglu()
    saved, planned = saved_and_planned(*start_policy(f"model.path={sparse_model}"), fused=True)
    assert planned == pytest.approx(saved, rel=0.03)


@pytest.mark.parametrize("sparse", [False, True])
def test_a_fused_swiglu_learns_the_same(start_policy, fuse_swiglu, sparse_model, sparse) -> None:
    model = [f"model.path={sparse_model}"] if sparse else []
    plain = start_policy(*model)[1].update(rows())
    fuse_swiglu()
    fused = start_policy(*model)[1].update(rows())
    assert {
        name: pytest.approx(value, rel=1e-5, abs=1e-7) for name, value in plain.items()
    } == fused
