import json
import re

import pytest

NODES = {
    "qwen3_0_6b": 1,
    "qwen3_0_6b_countdown": 1,
    "qwen3_8b": 1,
    "qwen3_14b": 2,
    "qwen3_14b_bfcl": 2,
    "qwen3_14b_math": 2,
    "qwen3_14b_search": 2,
    "qwen3_14b_text_games": 2,
    "qwen3_30b_a3b": 3,
}


@pytest.fixture
def plan_cluster(load_tool, monkeypatch):
    """The tool, run from the repository's root."""
    tool = load_tool("plan_cluster")
    monkeypatch.chdir(tool.Path(tool.__file__).parents[1])
    monkeypatch.setenv("COLUMNS", "150")
    return tool


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if "30b" in name else name for name in NODES],
)
def test_every_shipped_configuration_fits_its_cluster(plan_cluster, capsys, name) -> None:
    assert plan_cluster.main(["--config", f"configs/{name}.yaml", "--nodes", str(NODES[name])]) == 0
    assert "everything fits" in capsys.readouterr().out


def test_all_numbers_and_the_picture_are_written(plan_cluster, tmp_path) -> None:
    files = ["--json", str(tmp_path / "plan.json"), "--picture", str(tmp_path / "plan.svg")]
    assert plan_cluster.main(["--config", "configs/qwen3_14b.yaml", "--nodes", "2", *files]) == 0
    plan = json.loads((tmp_path / "plan.json").read_text())
    (stage,) = plan["stages"]
    parts = ("weights", "gradients", "optimizer", "activations", "reserve")
    assert stage["total"] == sum(stage[part] for part in parts) < stage["capacity"]
    assert plan["layout"]["data"] == 2
    assert (tmp_path / "plan.svg").read_text().startswith("<svg")


def test_what_does_not_fit_is_exit_code_1(plan_cluster, capsys) -> None:
    arguments = ["--config", "configs/qwen3_14b.yaml", "--nodes", "2", "parallel.tensor=1"]
    assert plan_cluster.main(arguments) == 1
    assert "does not fit" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["parallel.tensor=16"], "error: parallel.tensor = 16: must divide"),
        (["rollout.workers=8"], "error: rollout.workers = 8: .* leaves none to train"),
        (
            ["--gpu", "a100-80gb", "precision.train=fp8"],
            "error: precision.train = 'fp8': a100-80gb has no FP8; use bf16",
        ),
        (
            ["precision.train=fp8", "precision.fp8_recipe=mxfp8"],
            "error: precision.fp8_recipe = 'mxfp8': needs Blackwell",
        ),
        (["--nodes", "0"], "error: --nodes = 0: must be positive"),
        (["--gpus-per-node", "0"], "error: --gpus-per-node = 0: must be positive"),
        (
            [
                "--nodes",
                "4",
                "--gpus-per-node",
                "4",
                "rollout.tensor_parallel=8",
                "rollout.workers=1",
            ],
            "error: rollout.tensor_parallel = 8: is more than the 4 GPUs of a node",
        ),
        (
            ["--train-utilisation", "0"],
            "error: --train-utilisation = 0.0: must be a share, above 0",
        ),
        (
            ["--history-share", "2"],
            "error: --history-share = 2.0: must be a share, above 0 and at most 1",
        ),
        (["--tree-reuse", "0.5"], "error: --tree-reuse = 0.5: must be 0 or at least 1"),
        (["--tree-rollouts", "0.5"], "error: --tree-rollouts = 0.5: must be at least 1"),
        (["--train-reserve-gib", "-1"], "error: --train-reserve-gib = -1.0: must not be negative"),
        (
            ["--search", "learning.batching.epochs=0"],
            "error: learning.batching.epochs = 0: must be at least 1",
        ),
        (
            ["--search", "run.loggers=[foo]"],
            "error: run.loggers = 'foo': must be one of tensorboard",
        ),
    ],
)
def test_a_wrong_setting_is_one_line_and_exit_code_2(
    plan_cluster, capsys, arguments, message
) -> None:
    assert (
        plan_cluster.main(["--config", "configs/qwen3_14b.yaml", "--nodes", "2", *arguments]) == 2
    )
    said = capsys.readouterr().err
    assert re.match(message, said)
    assert said.count("\n") == 1


def test_a_search_prints_overrides_to_paste(plan_cluster, capsys) -> None:
    assert (
        plan_cluster.main(["--config", "configs/qwen3_14b.yaml", "--nodes", "2", "--search"]) == 0
    )
    assert " 1  parallel.tensor=" in capsys.readouterr().out


def test_a_search_says_why_all_layouts_were_refused(plan_cluster, capsys) -> None:
    arguments = [
        "--config",
        "configs/qwen3_14b.yaml",
        "--search",
        "learning.batching.micro_batch_tokens=1024",
    ]
    assert plan_cluster.main(arguments) == 1
    assert re.search(
        r"\d+ refused, most often: learning.batching.micro_batch_tokens = 1024: ",
        capsys.readouterr().out,
    )


def test_tensor_parallelism_over_nodes_is_said(plan_cluster, capsys) -> None:
    nodes = ["--config", "configs/qwen3_14b.yaml", "--nodes", "4", "--gpus-per-node", "4"]
    assert plan_cluster.main([*nodes, "rollout.workers=4", "parallel.tensor=8"]) in (0, 1)
    assert "parallel.tensor = 8 crosses nodes of 4 GPUs" in capsys.readouterr().out
    assert plan_cluster.main([*nodes, "rollout.workers=4", "parallel.tensor=4"]) in (0, 1)
    assert "crosses" not in capsys.readouterr().out


def test_settings_may_stand_anywhere(plan_cluster) -> None:
    arguments = [
        "--config",
        "configs/geo_hop_cpu.yaml",
        "run.seed=1",
        "--gpu",
        "cpu",
        "run.steps=2",
    ]
    assert plan_cluster.main(arguments) == 0


def test_an_assumption_is_a_flag(plan_cluster, capsys) -> None:
    arguments = [
        "--config",
        "configs/geo_hop_cpu.yaml",
        "--gpu",
        "cpu",
        "--train-utilisation",
        "0.25",
    ]
    assert plan_cluster.main(arguments) == 0
    assert "0.25" in capsys.readouterr().out
