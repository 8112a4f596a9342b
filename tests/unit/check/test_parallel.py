"""A layout that cannot work is refused by name, with the reason."""

from typing import Any

import pytest

from megatron_trace.check.parallel import check_parallel
from megatron_trace.config import FP8Recipe, Precision, SettingError
from megatron_trace.models.layout import padding
from tests.unit.check.models import DENSE, SPARSE, settings


@pytest.mark.parametrize(
    ("world", "model", "changed"),
    [
        (1, DENSE, {}),
        (6, DENSE, {"parallel__tensor": 2}),
        (16, DENSE, {"parallel__tensor": 2, "parallel__pipeline": 2, "parallel__context": 4}),
        (4, DENSE, {"parallel__pipeline": 4, "parallel__interleave": 2}),
        (4, DENSE, {"parallel__tensor": 2, "parallel__context": 2}),
        (3, DENSE, {"parallel__context": 3}),
        (2, DENSE, {"parallel__tensor": 2, "parallel__sequence": False}),
        (2, DENSE, {"parallel__overlap_param_gather": True, "parallel__overlap_grad_reduce": True}),
        (2, DENSE, {"parallel__tensor": 2, "parallel__expert_tensor": 1}),
        (8, SPARSE, {"parallel__expert": 8}),
        (8, SPARSE, {"parallel__tensor": 2, "parallel__expert": 4}),
        (4, SPARSE, {"parallel__tensor": 4, "parallel__expert": 4, "parallel__expert_tensor": 1}),
    ],
)
def test_layouts_that_work_pass(world: int, model: dict[str, Any], changed: dict[str, Any]) -> None:
    check_parallel(settings(**changed), model, world)


@pytest.mark.parametrize(
    ("world", "model", "changed", "message"),
    [
        (1, DENSE, {"parallel__context": 0}, r"parallel.context = 0: must be at least 1"),
        (1, DENSE, {"parallel__interleave": -1}, r"parallel.interleave = -1: must be at least 1"),
        (
            1,
            SPARSE,
            {"parallel__expert_tensor": 0},
            r"parallel.expert_tensor = 0: must be at least 1",
        ),
        (3, DENSE, {"parallel__tensor": 3}, r"parallel.tensor = 3: .*num_attention_heads \(8\)"),
        (8, DENSE, {"parallel__tensor": 8}, r"parallel.tensor = 8: .*num_key_value_heads \(4\)"),
        (
            4,
            DENSE | {"intermediate_size": 510},
            {"parallel__tensor": 4},
            r"intermediate_size \(510\)",
        ),
        (
            6,
            DENSE | {"num_attention_heads": 12, "num_key_value_heads": 6, "intermediate_size": 768},
            {"parallel__tensor": 6},
            r"parallel.tensor = 6: must divide 1024, .*vocabulary",
        ),
        (
            1,
            DENSE,
            {"parallel__context": 2},
            r"^parallel.context = 2: .* must divide the single train rank$",
        ),
        (
            3,
            DENSE,
            {"parallel__pipeline": 2},
            r"^parallel.pipeline = 2: .* must divide the 3 train ranks$",
        ),
        (
            2,
            SPARSE,
            {"parallel__expert_tensor": 4},
            r"^parallel.expert_tensor = 4: .* the 2 train ranks$",
        ),
        (
            1,
            DENSE,
            {"rollout__tensor_parallel": 8},
            r"rollout.tensor_parallel = 8: .*num_key_value_heads",
        ),
        (3, DENSE, {"parallel__pipeline": 3}, r"parallel.pipeline = 3: .*num_hidden_layers \(8\)"),
        (
            1,
            DENSE,
            {"parallel__interleave": 2},
            r"parallel.interleave = 2: needs parallel.pipeline > 1",
        ),
        (
            2,
            DENSE,
            {"parallel__pipeline": 2, "parallel__interleave": 3},
            r"parallel.interleave = 3: must divide the 4 layers of each of parallel.pipeline \(2\) stages",
        ),
        (
            1,
            DENSE,
            {"parallel__sequence": True},
            r"parallel.sequence = True: .*parallel.tensor > 1",
        ),
        (
            2,
            SPARSE,
            {"parallel__tensor": 2, "parallel__sequence": False},
            r"parallel.sequence = False: a model with experts needs it",
        ),
        (
            1,
            DENSE,
            {"parallel__overlap_param_gather": True},
            r"parallel.overlap_param_gather = True: needs parallel.overlap_grad_reduce",
        ),
        (
            2,
            DENSE,
            {"parallel__expert": 2},
            r"parallel.expert = 2: the model has no experts; use 1",
        ),
        (
            1,
            DENSE,
            {"parallel__expert_tensor": 2},
            r"parallel.expert_tensor = 2: .*no experts; use 1",
        ),
        (
            3,
            SPARSE,
            {"parallel__expert": 3},
            r"parallel.expert = 3: must divide .*num_experts \(8\)",
        ),
        (
            2,
            SPARSE | {"moe_intermediate_size": 97},
            {"parallel__tensor": 2},
            r"parallel.tensor = 2: .*moe_intermediate_size \(97\)",
        ),
        (
            3,
            SPARSE,
            {"parallel__expert_tensor": 3},
            r"parallel.expert_tensor = 3: .*moe_intermediate_size \(128\)",
        ),
        (
            8,
            DENSE,
            {"parallel__tensor": 2, "parallel__pipeline": 2, "parallel__context": 3},
            r"parallel.tensor \(2\) x parallel.context \(3\) x parallel.pipeline \(2\) .* 8 train ranks",
        ),
        (
            4,
            SPARSE,
            {"parallel__tensor": 2, "parallel__expert": 4},
            r"parallel.expert = 4: .*parallel.expert \(4\) x parallel.expert_tensor \(2\) .* 4 train ranks",
        ),
    ],
)
def test_layouts_that_cannot_work_are_refused(
    world: int, model: dict[str, Any], changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingError, match=message):
        check_parallel(settings(**changed), model, world)


@pytest.mark.parametrize(
    ("changed", "longest", "fewest"),
    [
        ({}, 1000, 1000),
        ({"parallel__tensor": 4}, 1001, 1004),
        ({"parallel__tensor": 4, "parallel__sequence": False}, 1001, 1001),
        ({"parallel__context": 3}, 1001, 1002),
        ({"parallel__tensor": 2, "parallel__context": 2}, 1001, 1004),
        ({"precision__train": Precision.fp8}, 1001, 1008),
        ({"precision__train": Precision.fp8, "precision__fp8_recipe": FP8Recipe.mxfp8}, 1001, 1024),
        (
            {"precision__train": Precision.fp8, "parallel__tensor": 2, "parallel__context": 2},
            1001,
            1024,
        ),
    ],
)
def test_a_micro_batch_holds_the_longest_rollout_with_its_padding(
    changed: dict[str, Any], longest: int, fewest: int
) -> None:
    def check(tokens: int) -> None:
        config = settings(
            **changed,
            rollout__max_history_tokens=longest,
            learning__batching__micro_batch_tokens=tokens,
        )
        check_parallel(config, DENSE, config.parallel.tensor * config.parallel.context)

    check(fewest)
    with pytest.raises(
        SettingError,
        match=rf"learning.batching.micro_batch_tokens = {fewest - 1}: .*at least {fewest}",
    ):
        check(fewest - 1)


def test_padding_is_that_of_the_packed_micro_batches() -> None:
    from megatron_trace.policy.packing import packing

    for tensor in (1, 2, 4):
        for context in (1, 2, 3):
            for sequence in (None, False):
                for train in (Precision.bf16, Precision.fp8):
                    for recipe in FP8Recipe:
                        config = settings(
                            parallel__tensor=tensor,
                            parallel__context=context,
                            parallel__sequence=sequence,
                            precision__train=train,
                            precision__fp8_recipe=recipe,
                        )
                        assert padding(config) == packing(config, DENSE).total_multiple
