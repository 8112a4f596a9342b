"""The plan of the CPU's configuration against a train rank that really holds and learns it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import megatron_trace.policy.model as policy_model
from megatron_trace.check.command import read_model_config
from megatron_trace.check.load import load_config
from megatron_trace.learning.rows import Row
from megatron_trace.plan.activations import activations
from megatron_trace.plan.build import built
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
            tree=number,
        )
        for number in range(count)
    ]


def trees() -> list[Row]:
    """Two trees that fill a micro-batch: a trunk of 64 tokens, and six branches of 32."""
    generator = np.random.default_rng(0)
    trunk, branch, branches = 64, 32, 6
    grown = []
    for tree in range(2):
        shared = generator.integers(0, 2000, trunk)
        for number in range(1, branches + 1):
            turn = np.repeat([0, number], [trunk, branch])
            row = Row(
                tokens=np.concatenate([shared, generator.integers(0, 2000, branch)]),
                learn=turn > 0,
                predict=np.arange(trunk + branch) == 20,
                advantage=np.ones(trunk + branch, np.float32),
                sampler_logprob=np.full(trunk + branch, -1.0, np.float32),
                target=np.zeros(trunk + branch, np.float32),
                turn=turn,
                tree=tree,
            )
            grown.append(row)
    return grown


TREES = Reach(keys=2.25, mask=96)
"""Of `trees()`: 6 · 96 keys for 256 tokens that are computed."""


@pytest.fixture
def start_policy() -> Iterator[Any]:
    """Makes the policy of configs/geo_hop_cpu.yaml with overrides."""
    from megatron_trace.policy.distributed import stop
    from megatron_trace.policy.policy import Policy

    def make(*overrides: str) -> tuple[Any, Any]:
        config = load_config(
            "configs/geo_hop_cpu.yaml",
            [f"learning.batching.micro_batch_tokens={TOKENS}", *overrides],
        )
        return config, Policy(config)

    yield make
    stop()


def storages(tensors: Any) -> dict[int, int]:
    """Bytes of each memory block that `tensors` lie in."""
    return {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for tensor in tensors
        if tensor is not None
    }


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_weights_gradients_and_optimizer_are_exactly_what_the_policy_holds(
    start_policy, precision
) -> None:
    config = load_config("configs/geo_hop_cpu.yaml", [f"precision.train={precision}"])
    planned = built(read_model_config(config.model.path), config, 1, rank=0)
    _, policy = start_policy(f"precision.train={precision}")
    policy.update(rows())  # before its first step Adam has no moments
    weights = storages(parameter for part in policy._chunks for parameter in part.parameters())
    learner = list(policy._optimizer.predictor._learner.parameters())
    gradients = storages(
        getattr(parameter, "main_grad", parameter.grad)
        for parameter in [*learner, *(one for part in policy._chunks for one in part.parameters())]
    )
    optimizers = [part.optimizer for part in policy._optimizer.megatron.chained_optimizers]
    state = [
        value
        for optimizer in [*optimizers, policy._optimizer.predictor._adam]
        for moments in optimizer.state.values()
        for name, value in moments.items()
        if name != "step"
    ]
    copies = storages(
        parameter
        for group in policy._optimizer.megatron.param_groups
        for parameter in group["params"]
    )
    own = {
        place: size for place, size in (copies | storages(learner)).items() if place not in weights
    }
    assert planned.weights == sum(weights.values())
    assert planned.gradients == sum(gradients.values())
    assert planned.optimizer == sum(storages(state).values()) + sum(own.values())


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


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize(
    "overrides",
    [
        ["recompute.granularity=none"],
        ["recompute.granularity=full"],
        ["recompute.granularity=full", "recompute.layers=2"],
        ["recompute.granularity=full", "recompute.method=block", "recompute.layers=3"],
        ["recompute.granularity=selective", "recompute.modules=[mlp]"],
        ["recompute.granularity=selective", "recompute.modules=[layernorm]"],
        ["recompute.granularity=selective", "recompute.modules=[core_attn]"],
    ],
    ids=" ".join,
)
def test_activations_are_what_autograd_saves(start_policy, precision, overrides) -> None:
    saved, planned = saved_and_planned(*start_policy(f"precision.train={precision}", *overrides))
    assert planned == pytest.approx(saved, rel=0.03)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize(
    "overrides",
    [
        ["recompute.granularity=none"],
        ["recompute.granularity=full"],
        ["recompute.granularity=selective", "recompute.modules=[core_attn]"],
    ],
    ids=" ".join,
)
def test_so_are_those_of_packed_trees(start_policy, precision, overrides) -> None:
    policy = start_policy(f"precision.train={precision}", *overrides)
    saved, planned = saved_and_planned(*policy, batch=trees(), reach=TREES)
    assert planned == pytest.approx(saved, rel=0.03)


@pytest.mark.parametrize(
    "overrides", [[], ["recompute.granularity=selective", "recompute.modules=[core_attn]"]]
)
@pytest.mark.parametrize("shared", [False, True])
def test_heads_without_norms_keep_less(start_policy, llama, shared, overrides) -> None:
    policy = start_policy(f"model.path={llama}", *overrides)
    batch, reach = (trees(), TREES) if shared else (rows(), None)
    saved, planned = saved_and_planned(*policy, batch=batch, reach=reach)
    assert planned == pytest.approx(saved, rel=0.03)


@pytest.mark.parametrize("modules", ["[moe]", None])
def test_so_are_those_of_experts(start_policy, sparse_model, modules) -> None:
    recompute = (
        ["recompute.granularity=selective", f"recompute.modules={modules}"] if modules else []
    )
    saved, planned = saved_and_planned(*start_policy(f"model.path={sparse_model}", *recompute))
    assert planned == pytest.approx(saved, rel=0.03)


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    """Folder of a small model that does not normalise its heads."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    described = LlamaConfig(
        hidden_size=128,
        intermediate_size=192,
        num_hidden_layers=2,
        vocab_size=2048,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        rms_norm_eps=1e-6,
    )
    AutoModelForCausalLM.from_config(described).save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def sparse_model(tmp_path: Path) -> Path:
    """Folder of a small model with experts."""
    from transformers import AutoModelForCausalLM, Qwen3MoeConfig

    sizes = {
        "hidden_size": 128,
        "intermediate_size": 192,
        "num_hidden_layers": 2,
        "vocab_size": 2048,
    }
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32}
    experts = {
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 96,
        "norm_topk_prob": True,
    }
    described = Qwen3MoeConfig(**sizes, **heads, **experts, max_position_embeddings=1024)
    AutoModelForCausalLM.from_config(described).save_pretrained(tmp_path)
    return tmp_path


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
