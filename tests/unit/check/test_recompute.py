"""Recomputation that Megatron refuses, or that would do nothing, is refused with the reason."""

from typing import Any

import pytest

from megatron_trace.check.recompute import check_recompute
from megatron_trace.config import FP8Recipe, Precision, Recompute, SettingError
from tests.unit.check.models import DENSE, SPARSE, settings

MIXED = SPARSE | {"decoder_sparse_step": 2}


def selective(*modules: str, **changed: Any) -> dict[str, Any]:
    return {
        "recompute__granularity": Recompute.selective,
        "recompute__modules": list(modules),
        **changed,
    }


def full(method: str, layers: int, **changed: Any) -> dict[str, Any]:
    return {
        "recompute__granularity": Recompute.full,
        "recompute__method": method,
        "recompute__layers": layers,
        **changed,
    }


FP8 = {"precision__train": Precision.fp8}
DELAYED = FP8 | {"precision__fp8_recipe": FP8Recipe.delayed}


@pytest.mark.parametrize(
    ("model", "changed"),
    [
        (DENSE, {}),
        (DENSE, {"recompute__modules": [], "recompute__layers": 5}),
        (DENSE, selective("core_attn", "layernorm", "mlp")),
        (SPARSE, selective("moe", "moe_act", precision__train=Precision.bf16)),
        (MIXED, selective("mlp")),
        (DENSE, selective("layernorm", **FP8)),
        (DENSE, full("uniform", 1)),
        (DENSE, full("uniform", 2, parallel__pipeline=2)),
        (DENSE, full("block", 3, parallel__pipeline=2)),
        (DENSE, full("block", 2, parallel__pipeline=2, parallel__interleave=2)),
    ],
)
def test_recomputation_that_works_passes(model: dict[str, Any], changed: dict[str, Any]) -> None:
    check_recompute(settings(**changed), model)


@pytest.mark.parametrize(
    ("model", "changed", "message"),
    [
        (DENSE, selective(), r"recompute.modules = \[\]: selective recomputation needs the name"),
        (
            DENSE,
            selective("attention"),
            r"recompute.modules = 'attention': must be one of core_attn",
        ),
        (DENSE, selective("moe"), r"recompute.modules = 'moe': the model has no experts"),
        (DENSE, selective("moe_act"), r"recompute.modules = 'moe_act': the model has no experts"),
        (SPARSE, selective("moe_act"), r"'moe_act': needs .* which float32 does not use; use moe"),
        (
            SPARSE,
            selective("mlp"),
            r"recompute.modules = 'mlp': all layers of the model have experts",
        ),
        (DENSE, selective("layernorm", **DELAYED), r"'layernorm': does not go with .*delayed"),
        (SPARSE, selective("moe_act", **DELAYED), r"'moe_act': does not go with .*delayed"),
        (DENSE, full("blocks", 1), r"recompute.method = 'blocks': must be one of uniform, block"),
        (DENSE, full("block", 0), r"recompute.layers = 0: must be at least 1"),
        (DENSE, full("block", 5, parallel__pipeline=2), r"recompute.layers = 5: must be 1 to 4"),
        (DENSE, full("uniform", 3), r"recompute.layers = 3: must divide the 8 layers"),
        (
            DENSE,
            full("uniform", 4, parallel__pipeline=2, parallel__interleave=2),
            r"recompute.layers = 4: must be 1 to 2",
        ),
    ],
)
def test_recomputation_that_cannot_work_is_refused(
    model: dict[str, Any], changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingError, match=message):
        check_recompute(settings(**changed), model)
