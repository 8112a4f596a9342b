import math

import pytest

from megatron_trace.compare.record import read_record, read_records, write_record
from megatron_trace.config import SettingError
from tests.unit.compare.canned import field, record


def test_a_record_comes_back_as_it_was_written(tmp_path) -> None:
    one = record("trace", 3, [0.25, 0.5])
    assert read_record(write_record(tmp_path, one)) == one
    assert [path.name for path in tmp_path.iterdir()] == ["trace-b64-s3.json"]


def test_a_number_that_is_none_is_null_and_floats_are_short(tmp_path) -> None:
    one = record("trace", 0, [1 / 3, math.nan])
    path = write_record(tmp_path, one)
    assert "NaN" not in path.read_text()
    assert read_record(path).evaluations["success"] == [0.33333, None]


def test_settings_are_kept_as_they_are(tmp_path) -> None:
    one = record("trace", 0, [0.5])
    one.settings["simulate.step_size"] = 0.0123456
    assert read_record(write_record(tmp_path, one)).settings == one.settings


def test_records_are_sorted_by_variant_budget_and_seed(tmp_path) -> None:
    for one in reversed(field()):
        write_record(tmp_path, one)
    assert [(r.variant, r.seed) for r in read_records(tmp_path)] == [
        (variant, seed) for variant in ("trace", "uniform") for seed in range(3)
    ]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 1, "kind": "real"}', '{"format": 99}']
)
def test_a_file_of_another_kind_is_named(tmp_path, text) -> None:
    (tmp_path / "odd.json").write_text(text)
    with pytest.raises(SettingError, match=r"odd.json.*is no result of this tool"):
        read_records(tmp_path)


def test_real_and_simulated_results_are_not_mixed(tmp_path) -> None:
    write_record(tmp_path, record("uniform", 0, [0.5]))
    write_record(tmp_path, record("trace", 0, [0.5], kind="simulated"))
    with pytest.raises(SettingError, match="keep them apart"):
        read_records(tmp_path)
