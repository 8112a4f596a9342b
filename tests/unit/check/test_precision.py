"""FP8 settings that Megatron or Transformer Engine refuse are refused by name, with the reason."""

from typing import Any

import pytest

from megatron_trace.check.precision import check_precision
from megatron_trace.config import FP8Recipe, Precision, SettingError
from tests.unit.check.models import DENSE, SPARSE, settings

DELAYED, MXFP8 = (
    {"precision__fp8_recipe": recipe} for recipe in (FP8Recipe.delayed, FP8Recipe.mxfp8)
)


@pytest.mark.parametrize(
    ("model", "changed"),
    [
        (DENSE, {}),
        (SPARSE, {"parallel__tensor": 4}),
        (DENSE, MXFP8),
        (DENSE, {"precision__fp8_param_gather": True}),
        (DENSE, {"precision__fp8_amax_algorithm": "most_recent", "precision__fp8_amax_history": 1}),
        (
            DENSE,
            {"precision__fp8_first_layers_bf16": 1, "precision__fp8_last_layers_bf16": 2},
        ),
    ],
)
def test_fp8_that_works_passes(model: dict[str, Any], changed: dict[str, Any]) -> None:
    check_precision(settings(precision__train=Precision.fp8, **changed), model)


@pytest.mark.parametrize(
    ("model", "changed", "message"),
    [
        (
            DENSE,
            {"precision__fp8_amax_algorithm": "mean"},
            r"fp8_amax_algorithm = 'mean': must be one of max, most_recent",
        ),
        (DENSE, {"precision__fp8_amax_history": 0}, r"fp8_amax_history = 0: must be at least 1"),
        (
            DENSE,
            {"precision__fp8_param_gather": True, **MXFP8},
            r"fp8_param_gather = True: .*MXFP8",
        ),
        (
            DENSE,
            {"precision__fp8_first_layers_bf16": 1, **DELAYED},
            r"fp8_first_layers_bf16 = 1: the delayed recipe",
        ),
        (
            DENSE,
            {"precision__fp8_last_layers_bf16": 1, **DELAYED},
            r"fp8_last_layers_bf16 = 1: the delayed recipe",
        ),
        (
            DENSE,
            {"precision__fp8_first_layers_bf16": -1},
            r"= -1: must be at least 0",
        ),
        (
            DENSE,
            {"precision__fp8_last_layers_bf16": 3, "parallel__pipeline": 4},
            r"fp8_last_layers_bf16 = 3: must be at most the layers of a pipeline stage \(2\)",
        ),
        (
            DENSE,
            {
                "precision__fp8_first_layers_bf16": 4,
                "precision__fp8_last_layers_bf16": 4,
            },
            r"leaves none of the 8 layers in FP8",
        ),
        (
            DENSE | {"hidden_size": 264},
            {},
            r"precision.train = 'fp8': .*multiples of 16, .*hidden_size is 264",
        ),
        (
            DENSE | {"intermediate_size": 480},
            {"parallel__tensor": 4},
            r"intermediate_size is 120 on",
        ),
        (DENSE | {"intermediate_size": 528}, MXFP8, r"multiples of 32, .*intermediate_size is 528"),
        (DENSE | {"head_dim": 18}, {"parallel__tensor": 4}, r"query width is 36 on"),
        (DENSE | {"head_dim": 16, "num_key_value_heads": 1}, MXFP8, None),
        (
            DENSE | {"head_dim": 8, "num_key_value_heads": 1},
            MXFP8,
            r"query, key and value width is 80",
        ),
        (SPARSE | {"moe_intermediate_size": 72}, {}, r"moe_intermediate_size is 72"),
        (SPARSE, {"parallel__expert_tensor": 16}, r"moe_intermediate_size is 8"),
    ],
)
def test_fp8_that_cannot_work_is_refused(
    model: dict[str, Any], changed: dict[str, Any], message: str | None
) -> None:
    config = settings(precision__train=Precision.fp8, **changed)
    if message is None:
        check_precision(config, model)
        return
    with pytest.raises(SettingError, match=message):
        check_precision(config, model)


@pytest.mark.parametrize("train", [Precision.float32, Precision.bf16])
def test_fp8_settings_count_only_in_fp8(train: Precision) -> None:
    check_precision(settings(precision__train=train, precision__fp8_amax_history=0), DENSE)
