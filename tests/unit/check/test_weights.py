"""A folder without weights is refused in one line that says how to get them."""

import pytest

from megatron_trace.check.load import load_config
from megatron_trace.check.weights import check_weights
from megatron_trace.config import SettingError


@pytest.mark.parametrize(
    ("folder", "source"), [("Qwen3-14B", "Qwen/Qwen3-14B"), ("mine", "<organisation>/<model>")]
)
def test_a_folder_without_weights_is_refused_with_the_command_that_fetches_them(
    tmp_path, folder, source
) -> None:
    path = tmp_path / folder
    path.mkdir()
    (path / "config.json").write_text("{}")
    with pytest.raises(SettingError) as error:
        check_weights(load_config(None, [f"model.path={path}"]))
    assert f"hf download {source} --local-dir {path}" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_with_weights_passes(tmp_path) -> None:
    (tmp_path / "model-00001-of-00002.safetensors").touch()
    check_weights(load_config(None, [f"model.path={tmp_path}"]))
