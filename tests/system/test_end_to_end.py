"""The program as a user starts it: train, replay, rollouts only, and a typo."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from megatron_trace.tree import load_trees
from tests.system.program import ROOT, finish


def rows(run_dir: Path) -> list[dict]:
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if "evaluation" not in row]


def test_a_run_leaves_everything_behind(trained) -> None:
    names = {path.name for path in trained.iterdir()}
    assert names == {
        *(
            "config.yaml",
            "finished",
            "metrics.jsonl",
            "tensorboard",
            "trees",
            "policy",
            "report.html",
            "checkpoints",
            "hf",
        )
    }
    evaluations = [json.loads(x) for x in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in evaluations if "evaluation" in row] == [0, 3]


def test_policies_on_the_way_are_exported_where_that_is_asked(trained) -> None:
    assert [path.name for path in (trained / "hf").iterdir()] == ["step_00002"]
    assert (trained / "hf" / "step_00002" / "model.safetensors").exists()


def test_the_budget_is_spent_exactly(trained) -> None:
    for step, row in enumerate(rows(trained), start=1):
        assert row["bare_rollouts"] + row["continuations"] == 24
        trees = load_trees(trained / "trees" / f"step_{step:05d}.jsonl.gz")
        assert sum(len(tree.rollouts) for tree in trees) == 24


def test_every_token_carries_the_version_that_sampled_it(trained) -> None:
    for step in (1, 2, 3):
        trees = load_trees(trained / "trees" / f"step_{step:05d}.jsonl.gz")
        versions = {version for tree in trees for turn in tree.turns for version in turn.versions}
        assert versions == {step - 1}


def test_sampler_and_trainer_agree_after_weights_were_sent(trained) -> None:
    assert all(row["logprob_gap"] < 1e-3 for row in rows(trained))


def test_the_final_policy_loads_in_transformers(trained) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = trained / "policy"
    tokenizer, model = (
        AutoTokenizer.from_pretrained(folder),
        AutoModelForCausalLM.from_pretrained(folder),
    )
    ids = tokenizer("What is the capital of France ?", return_tensors="pt").input_ids
    assert model(ids).logits.shape == (1, ids.shape[1], model.config.vocab_size)


def test_replay_of_the_saved_trees_takes_the_same_training_steps(trained, replayed) -> None:
    for original, again in zip(rows(trained), rows(replayed), strict=True):
        for name in ("policy_loss", "predictor_loss", "gradient_norm"):
            assert again[name] == pytest.approx(original[name], rel=1e-4, abs=1e-7)


@pytest.mark.slow
def test_rollouts_alone_save_trees_and_train_nothing(tmp_path) -> None:
    finish(tmp_path / "sampled", "run.steps=1", "--rollout-only")
    assert {path.name for path in (tmp_path / "sampled").iterdir()}.isdisjoint(
        {"policy", "checkpoints"}
    )
    assert "policy_loss" not in rows(tmp_path / "sampled")[0]
    assert load_trees(tmp_path / "sampled" / "trees" / "step_00001.jsonl.gz")


def test_a_typo_is_one_line_and_exit_code_2() -> None:
    result = subprocess.run(
        [
            sys.executable,
            "pretrain_trace.py",
            "--config",
            "configs/geo_hop_cpu.yaml",
            "allocation.bugdet=3",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "did you mean allocation.budget?" in result.stderr
