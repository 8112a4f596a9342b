from pathlib import Path

import pytest

from megatron_trace.compare.agreement import check_agreement, check_kind
from megatron_trace.config import SettingError
from tests.unit.compare.canned import field, record

FOLDER = Path("results")


def pair(one: dict, other: dict, variants=("uniform", "trace"), budgets=(64, 64)):
    records = [record(v, 0, [0.5], budget=b) for v, b in zip(variants, budgets, strict=True)]
    for made, settings in zip(records, (one, other), strict=True):
        made.settings |= settings
    return records


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        ("world.spread", 0.6, 0.2),
        ("simulate.repeats", 40, 10),
        ("run.rollouts", 3840, 1920),
        ("evaluation.tasks", 80, 120),
        ("evaluation.every", 6, 15),
        ("model.path", "a", "b"),
        ("data.train", "a", "b"),
        ("environment.options.search_qa.corpus", "a", "b"),
        ("allocation.unit", "tokens", "rollouts"),
    ],
)
def test_results_that_cannot_be_compared_are_named_with_the_setting_and_both_values(
    name, one, other
) -> None:
    with pytest.raises(
        SettingError,
        match=rf"uniform-b64-s0 and trace-b64-s0 differ in {name} \({one} and {other}\)",
    ):
        check_agreement(FOLDER, pair({name: one}, {name: other}))
    with pytest.raises(SettingError, match=rf"{name} \(the default and {other}\)"):
        check_agreement(FOLDER, pair({}, {name: other}))


def test_one_variant_has_one_setting_over_its_seeds() -> None:
    records = field(2)
    check_agreement(FOLDER, records)
    records[-1].settings["learning.optimizer.learning_rate"] = 3e-4
    with pytest.raises(
        SettingError, match=r"learning.optimizer.learning_rate \(0.0001 and 0.0003\)"
    ):
        check_agreement(FOLDER, records)


def test_variants_may_differ_in_what_they_learn_by() -> None:
    check_agreement(
        FOLDER, pair({"learning.advantage.name": "rloo"}, {"learning.advantage.name": "grpo"})
    )


def test_budgets_are_evaluated_after_as_many_rollouts_and_have_one_total_of_tokens() -> None:
    every = pair({"evaluation.every": 12}, {"evaluation.every": 6}, budgets=(64, 128))
    check_agreement(FOLDER, every)
    tokens = {"allocation.unit": "tokens"}
    check_agreement(
        FOLDER, pair(tokens | {"run.steps": 10}, tokens | {"run.steps": 5}, budgets=(64, 128))
    )
    with pytest.raises(SettingError, match=r"the total of tokens \(640 and 1280\)"):
        check_agreement(
            FOLDER, pair(tokens | {"run.steps": 10}, tokens | {"run.steps": 10}, budgets=(64, 128))
        )


def test_results_of_the_other_kind_are_refused() -> None:
    check_kind(FOLDER, [], "real")
    check_kind(FOLDER, field(1), "real")
    with pytest.raises(SettingError, match="holds real results, these are simulated"):
        check_kind(FOLDER, field(1), "simulated")
