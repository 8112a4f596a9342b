import pytest

from megatron_trace.compare.grid import (
    Variant,
    make_grid,
    parse_seeds,
    parse_variant,
    strategy_variant,
)
from megatron_trace.config import SettingError


def test_a_grid_goes_seed_by_seed_so_that_one_that_is_cut_off_has_whole_seeds() -> None:
    trials = make_grid([strategy_variant("uniform"), strategy_variant("vip")], [64, 128], [3, 1])
    assert [trial.name for trial in trials] == [
        *("uniform-b64-s3", "vip-b64-s3", "uniform-b128-s3", "vip-b128-s3"),
        *("uniform-b64-s1", "vip-b64-s1", "uniform-b128-s1", "vip-b128-s1"),
    ]


def test_a_variant_is_a_name_and_settings_whose_brackets_hold_commas() -> None:
    variant = parse_variant(
        "deep=allocation.strategy=trace,run.loggers=[a,b],x.y={p: 1, q: [2,3]},x.z=1"
    )
    assert variant == Variant(
        "deep", ("allocation.strategy=trace", "run.loggers=[a,b]", "x.y={p: 1, q: [2,3]}", "x.z=1")
    )
    assert parse_variant("plain").overrides == ()


def test_a_strategy_from_a_file_is_called_as_its_file() -> None:
    assert strategy_variant("examples/mine.py") == Variant(
        "mine", ("allocation.strategy=examples/mine.py",)
    )


def test_seeds_are_numbers_and_ranges() -> None:
    assert parse_seeds(["0-2", "7", "9,11-12"]) == [0, 1, 2, 7, 9, 11, 12]


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "0..4", "4-0"])
def test_other_seeds_are_refused(text) -> None:
    with pytest.raises(SettingError, match="--seeds"):
        parse_seeds([text])


@pytest.mark.parametrize("text", ["=a.b=1", "a/b=c.d=1", "name=nothing"])
def test_a_variant_without_name_or_settings_is_refused(text) -> None:
    with pytest.raises(SettingError, match="--variant"):
        parse_variant(text)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("allocation.budget=64", "allocation.budget = 64: give the budgets with --budgets"),
        ("allocation.unit=tokens", "allocation.unit = 'tokens': .* set it after --"),
        ("run.seed=3", "run.seed = 3: give the seeds with --seeds"),
        ("run.steps=3", "run.steps = 3: .* --total"),
        ("run={rollouts: 64}", "run.rollouts = 64: .* --total"),
        ("run.name=x", "run.name = 'x'"),
        ("run.directory=x", "run.directory = 'x': .* --out"),
    ],
)
def test_a_variant_does_not_set_what_the_grid_sets(setting, message) -> None:
    with pytest.raises(SettingError, match=message):
        parse_variant(f"a=allocation.strategy=trace,{setting}")


def test_two_variants_cannot_share_a_name() -> None:
    with pytest.raises(SettingError, match="twice"):
        make_grid([Variant("a", ()), Variant("a", ("x.y=1",))], [8], [0])
