"""What passes our checks, Megatron takes; and the checks are quick enough to be asked thousands of
times.
"""

import subprocess
import sys
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as budget
from hypothesis import strategies as st

from megatron_trace.check.layout import check_layout
from megatron_trace.config import (
    Config,
    FP8Format,
    FP8Recipe,
    Precision,
    Recompute,
    SettingError,
)
from tests.unit.check.models import DENSE, SPARSE, settings

SIZES = st.sampled_from([1, 2, 3, 4, 8])
PARALLEL: dict[str, st.SearchStrategy[Any]] = {
    "parallel__tensor": SIZES,
    "parallel__sequence": st.booleans(),
    "parallel__pipeline": SIZES,
    "parallel__interleave": st.integers(1, 3),
    "parallel__context": SIZES,
    "parallel__expert": SIZES,
    "parallel__expert_tensor": SIZES,
    "parallel__overlap_grad_reduce": st.booleans(),
    "parallel__overlap_param_gather": st.booleans(),
}
PRECISION: dict[str, st.SearchStrategy[Any]] = {
    "precision__fp8_recipe": st.sampled_from(FP8Recipe),
    "precision__fp8_format": st.sampled_from(FP8Format),
    "precision__fp8_amax_algorithm": st.sampled_from(["max", "most_recent"]),
    "precision__fp8_first_layers_bf16": st.integers(-1, 9),
    "precision__fp8_last_layers_bf16": st.integers(-1, 9),
    "precision__fp8_param_gather": st.booleans(),
}
MODULES = st.sampled_from(["core_attn", "layernorm", "mlp", "moe_act", "moe", "attention"])
RECOMPUTE: dict[str, st.SearchStrategy[Any]] = {
    "recompute__modules": st.lists(MODULES, min_size=1, max_size=2),
    "recompute__method": st.sampled_from(["uniform", "block", "other"]),
    "recompute__layers": st.integers(0, 9),
}


def some(
    choices: dict[str, st.SearchStrategy[Any]], most: int
) -> st.SearchStrategy[dict[str, Any]]:
    """At most `most` of the settings, changed."""
    pairs = st.one_of(*(st.tuples(st.just(name), value) for name, value in choices.items()))
    return st.lists(pairs, max_size=most).map(dict)


CHANGES = st.tuples(
    some(PARALLEL, 3),
    st.fixed_dictionaries({"precision__train": st.sampled_from(Precision)}),
    some(PRECISION, 2),
    st.fixed_dictionaries({"recompute__granularity": st.sampled_from(Recompute)}),
    some(RECOMPUTE, 2),
).map(lambda parts: {name: value for part in parts for name, value in part.items()})


@pytest.fixture
def transformer_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which Megatron finds a Transformer Engine of today."""
    from megatron.core.transformer import transformer_config as megatron

    from megatron_trace.policy import precision as ours

    monkeypatch.setattr(megatron, "is_te_min_version", lambda *_, **__: True)
    monkeypatch.setattr(ours, "has_transformer_engine", lambda: True)


def built(config: Config, hf: dict[str, Any]) -> None:
    from megatron_trace.models.weight_map import family_of
    from megatron_trace.policy.megatron_config import ddp_config, transformer_config

    transformer_config(hf, config, family_of(hf["model_type"]))
    ddp_config(config)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Megatron's advice
@pytest.mark.usefixtures("transformer_engine")
@budget(
    max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(changed=CHANGES, model=st.sampled_from([DENSE, SPARSE]))
def test_what_passes_our_checks_megatron_takes(
    changed: dict[str, Any], model: dict[str, Any]
) -> None:
    config = settings(**changed)
    try:
        check_layout(config, model, world_size=2304)  # a multiple of all their products
    except SettingError:
        return
    built(config, model)


REFUSED_BY_MEGATRON: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (DENSE, {"parallel__tensor": 3}),
    (DENSE, {"parallel__sequence": True}),
    (DENSE, {"precision__fp8_recipe": FP8Recipe.delayed, "precision__fp8_first_layers_bf16": 1}),
    (DENSE, {"precision__fp8_recipe": FP8Recipe.tensorwise, "precision__fp8_last_layers_bf16": 9}),
    (DENSE, {"recompute__granularity": Recompute.full, "recompute__method": "other"}),
    (DENSE, {"recompute__granularity": Recompute.selective, "recompute__modules": ["attention"]}),
    (
        DENSE,
        {
            "precision__fp8_recipe": FP8Recipe.delayed,
            "recompute__granularity": Recompute.selective,
            "recompute__modules": ["layernorm"],
        },
    ),
]


@pytest.mark.usefixtures("transformer_engine")
@pytest.mark.parametrize(("model", "changed"), REFUSED_BY_MEGATRON)
def test_what_megatron_refuses_we_refuse_first(
    model: dict[str, Any], changed: dict[str, Any]
) -> None:
    config = settings(precision__train=Precision.fp8, **changed)
    with pytest.raises((ValueError, AssertionError)):
        built(config, model)
    with pytest.raises(SettingError):
        check_layout(config, model, world_size=2304)


def test_a_thousand_layouts_take_less_than_a_second() -> None:
    config = settings(parallel__tensor=2, parallel__expert=4, precision__train=Precision.fp8)
    begin = time.process_time()
    for _ in range(1000):
        check_layout(config, SPARSE, world_size=2304)
    assert time.process_time() - begin < 1.0


def test_the_checks_import_no_torch() -> None:
    program = "import sys, megatron_trace.check.layout, megatron_trace.check.devices; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
