"""The plan of the CPU's configuration against a train rank that really holds and learns it."""

import pytest
from _pytest.mark.structures import ParameterSet

from megatron_trace.check.command import read_model_config
from megatron_trace.check.load import load_config
from megatron_trace.plan.build import built
from tests.unit.plan.a_step import TREES, rows, saved_and_planned, storages, trees


def slow(*overrides: str) -> ParameterSet:
    """A case that only `make test-all` runs."""
    return pytest.param(list(overrides), marks=pytest.mark.slow)


PRECISIONS = pytest.mark.parametrize(
    "precision", ["float32", pytest.param("bf16", marks=pytest.mark.slow)]
)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_weights_gradients_and_optimizer_are_exactly_what_the_policy_holds(
    start_policy, precision
) -> None:
    config = load_config("configs/geo_hop_cpu.yaml", [f"precision.train={precision}"])
    planned = built(read_model_config(config.model.path), config, 1, rank=0)
    _, policy = start_policy(f"precision.train={precision}")
    policy.update(rows())  # before its first step Adam has no moments
    weights = storages(parameter for part in policy._chunks for parameter in part.parameters())
    gradients = storages(
        getattr(parameter, "main_grad", parameter.grad)
        for part in policy._chunks
        for parameter in part.parameters()
    )
    optimizers = [part.optimizer for part in policy._optimizer.megatron.chained_optimizers]
    state = [
        value
        for optimizer in optimizers
        for moments in optimizer.state.values()
        for name, value in moments.items()
        if name != "step"
    ]
    copies = storages(
        parameter
        for group in policy._optimizer.megatron.param_groups
        for parameter in group["params"]
    )
    own = {place: size for place, size in copies.items() if place not in weights}
    known = storages(policy._optimizer.predictor._known)
    assert planned.weights == sum(weights.values())
    assert planned.gradients == sum(gradients.values())
    assert planned.optimizer == sum((storages(state) | known | own).values())


@PRECISIONS
@pytest.mark.parametrize(
    "overrides",
    [
        ["recompute.granularity=none"],
        ["recompute.granularity=full"],
        slow("recompute.granularity=full", "recompute.layers=2"),
        ["recompute.granularity=full", "recompute.method=block", "recompute.layers=3"],
        slow("recompute.granularity=selective", "recompute.modules=[mlp]"),
        slow("recompute.granularity=selective", "recompute.modules=[layernorm]"),
        ["recompute.granularity=selective", "recompute.modules=[core_attn]"],
    ],
    ids=" ".join,
)
def test_activations_are_what_autograd_saves(start_policy, precision, overrides) -> None:
    saved, planned = saved_and_planned(*start_policy(f"precision.train={precision}", *overrides))
    assert planned == pytest.approx(saved, rel=0.03)


@PRECISIONS
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
