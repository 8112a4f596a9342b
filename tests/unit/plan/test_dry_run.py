"""A dry run says what a run would refuse, and starts nothing."""

from dataclasses import replace

import pytest

from megatron_trace.check.command import read_model_config
from megatron_trace.check.load import load_config
from megatron_trace.config import SettingError
from megatron_trace.plan import dry_run as module
from megatron_trace.plan.dry_run import dry_run
from megatron_trace.plan.machines import GPUS


@pytest.fixture(autouse=True)
def no_folders(monkeypatch, tmp_path):
    """The check of run.directory makes it."""
    real = load_config

    def load(file: str, overrides: tuple[str, ...] = ()):
        return real(file, [f"run.directory={tmp_path}", *overrides])

    monkeypatch.setattr(f"{__name__}.load_config", load)


@pytest.mark.parametrize(
    "name", ["qwen3_14b", "qwen3_14b_search", "qwen3_14b_math", "qwen3_14b_text_games"]
)
def test_a_cluster_configuration_passes_on_a_laptop(capsys, name) -> None:
    assert dry_run(load_config(f"configs/{name}.yaml")) == 0
    said = capsys.readouterr().out
    assert "not so on this machine: model.path" in said
    assert "hf download Qwen/Qwen3-14B --local-dir models/Qwen3-14B" in said
    assert "everything fits" in said


def test_without_torchrun_the_fewest_nodes_that_fit_are_planned() -> None:
    config = load_config("configs/qwen3_30b_a3b.yaml")
    hf = read_model_config(config.model.path)
    assert module.fewest_ranks(config, hf, GPUS["h100-80gb"]) == 16
    assert module.fewest_ranks(config, hf, GPUS["b200-180gb"]) == 8


@pytest.mark.parametrize("name", ["qwen3_8b", "qwen3_0_6b", "qwen3_0_6b_countdown"])
def test_what_the_fleet_leaves_of_one_node_comes_first(capsys, name) -> None:
    assert dry_run(load_config(f"configs/{name}.yaml")) == 0
    said = capsys.readouterr().out
    assert "planned for 4 train ranks" in said
    assert "on 1 x 8 h100-80gb" in said


def test_a_node_has_more_gpus_than_torchrun_started_ranks_on_it(capsys, monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert dry_run(load_config("configs/qwen3_8b.yaml")) == 0
    assert "on 1 x 8" in capsys.readouterr().out


def test_what_does_not_fit_is_exit_code_2(capsys, monkeypatch) -> None:
    small = replace(GPUS["h100-80gb"], memory=40 * 2**30)
    monkeypatch.setattr(module, "gpu_of", lambda config: small)
    assert dry_run(load_config("configs/qwen3_14b.yaml")) == 2
    assert "does not fit" in capsys.readouterr().out


def test_what_no_machine_can_do_is_an_error() -> None:
    with pytest.raises(SettingError, match=r"parallel\.tensor = 3"):
        dry_run(load_config("configs/qwen3_14b.yaml", ("parallel.tensor=3",)))


def test_the_layout_must_divide_the_train_ranks_that_torchrun_started(monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "6")
    with pytest.raises(SettingError, match="must divide the 6 train ranks"):
        dry_run(load_config("configs/qwen3_14b.yaml"))


def test_the_cpu_configuration_is_planned_for_the_cpu(capsys) -> None:
    assert dry_run(load_config("configs/geo_hop_cpu.yaml")) == 0
    assert "cpu" in capsys.readouterr().out
