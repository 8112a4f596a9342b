"""The program as a user starts it: train, replay, rollouts only, and a typo."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from megatron_trace.tree import load_trees

ROOT = Path(__file__).parents[2]
SMALL = [
    "run.steps=2",
    "allocation.budget=24",
    "allocation.bare_rollouts=16",
    "allocation.pool=24",
    "rollout.concurrency=32",
    "evaluation.tasks=4",
]


def start(*arguments: str, processes: int = 1) -> subprocess.CompletedProcess:
    command = [
        Path(sys.executable).with_name("torchrun"),
        "--nproc-per-node",
        str(processes),
        "pretrain_trace.py",
    ]
    return subprocess.run(
        [*command, "--config", "configs/geo_hop_cpu.yaml", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


def rows(run_dir: Path) -> list[dict]:
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if "evaluation" not in row]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A folder of runs, of which `trained` was trained on two data-parallel ranks."""
    folder = tmp_path_factory.mktemp("runs")
    result = start(*SMALL, f"run.directory={folder}", "run.name=trained", processes=2)
    assert result.returncode == 0, result.stderr[-3000:]
    return folder


def test_a_run_leaves_everything_behind(runs):
    names = {path.name for path in (runs / "trained").iterdir()}
    assert names == {"config.yaml", "metrics.jsonl", "tensorboard", "trees", "policy", "report.html"}
    evaluations = [json.loads(x) for x in (runs / "trained" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in evaluations if "evaluation" in row] == [0, 2]


def test_the_budget_is_spent_exactly_and_split_as_set(runs):
    for step, row in enumerate(rows(runs / "trained"), start=1):
        assert (row["bare_rollouts"], row["continuations"]) == (16, 8)
        trees = load_trees(runs / "trained" / "trees" / f"step_{step:05d}.jsonl.gz")
        assert sum(len(tree.rollouts) for tree in trees) == 24


def test_every_token_carries_the_version_that_sampled_it(runs):
    for step in (1, 2):
        trees = load_trees(runs / "trained" / "trees" / f"step_{step:05d}.jsonl.gz")
        versions = {version for tree in trees for turn in tree.turns for version in turn.versions}
        assert versions == {step - 1}


def test_sampler_and_trainer_agree_after_weights_were_sent(runs):
    assert all(row["logprob_gap"] < 1e-3 for row in rows(runs / "trained"))


def test_the_final_policy_loads_in_transformers(runs):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = runs / "trained" / "policy"
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    ids = tokenizer("What is the capital of France ?", return_tensors="pt").input_ids
    assert model(ids).logits.shape == (1, ids.shape[1], model.config.vocab_size)


def test_replay_of_the_saved_trees_takes_the_same_training_steps(runs):
    result = start(
        "run.steps=2", f"run.directory={runs}", "run.name=replayed", "--replay", str(runs / "trained")
    )
    assert result.returncode == 0, result.stderr[-3000:]
    for original, replayed in zip(rows(runs / "trained"), rows(runs / "replayed"), strict=True):
        for name in ("policy_loss", "predictor_loss", "gradient_norm"):
            assert replayed[name] == pytest.approx(original[name], rel=1e-4, abs=1e-7)


def test_rollouts_alone_save_trees_and_train_nothing(runs):
    result = start(*SMALL, "run.steps=1", f"run.directory={runs}", "run.name=sampled", "--rollout-only")
    assert result.returncode == 0, result.stderr[-3000:]
    assert not (runs / "sampled" / "policy").exists()
    assert "policy_loss" not in rows(runs / "sampled")[0]
    assert load_trees(runs / "sampled" / "trees" / "step_00001.jsonl.gz")


def test_a_typo_is_one_line_and_exit_code_2():
    result = subprocess.run(
        [sys.executable, "pretrain_trace.py", "--config", "configs/geo_hop_cpu.yaml", "allocation.bugdet=3"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "did you mean allocation.budget?" in result.stderr
