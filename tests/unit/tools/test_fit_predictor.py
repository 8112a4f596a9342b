"""A predictor that is fitted to a policy's own rollouts."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file
from transformers import Qwen3Config, Qwen3Model

from megatron_trace.models.predictor import FILE, PredictorHead, load_predictor, shapes
from megatron_trace.tree import ROOT, RolloutTree, save_trees
from tests.unit.trees import chain

TREES, HIDDEN = 60, 32


@pytest.fixture(scope="module")
def tool(load_tool) -> ModuleType:
    return load_tool("fit_predictor")


def easy_or_hard(number: int) -> RolloutTree:
    """A tree whose prompt ends with what becomes of most of its rollouts."""
    easy = number % 2
    tree = RolloutTree.from_prompt({"id": number}, [5, 8 + easy], prediction=0.5, state={})
    for rollout in range(3):
        tree.graft(ROOT, chain(20 + rollout, 2, float(easy if rollout else 1 - easy)))
    return tree


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Folder of a small policy."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=100,
        hidden_size=HIDDEN,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        initializer_range=0.2,
    )
    Qwen3Model(config).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_the_head_beside_the_model_knows_easy_tasks_from_hard_ones(
    tool: ModuleType,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    trees = [easy_or_hard(number) for number in range(TREES)]
    (tmp_path / "run" / "trees").mkdir(parents=True)
    for step, part in ((1, trees[: TREES // 2]), (2, trees[TREES // 2 :])):
        save_trees(tmp_path / "run" / "trees" / f"step_{step}.jsonl.gz", part)
    monkeypatch.setattr(
        sys, "argv", ["fit_predictor", str(tmp_path / "run"), "--model", str(model)]
    )
    tool.main()
    stored = load_file(model / FILE)
    assert {name: tuple(tensor.shape) for name, tensor in stored.items()} == shapes(HIDDEN)
    assert {tensor.dtype for tensor in stored.values()} == {torch.float32}
    said = capsys.readouterr().out
    # A root and three prefixes for each of the trees that are not held back.
    assert f"{4 * 54} anchors of 54 trees" in said
    assert "roots: Brier score" in said and "prefixes: Brier score" in said
    head = PredictorHead(HIDDEN)
    assert load_predictor(head, model)
    found = tool.anchors(Qwen3Model.from_pretrained(model, dtype=torch.float32).eval(), trees)
    assert len(found.target) == len(found.hidden) == 4 * TREES
    assert found.root.tolist() == [True, False, False, False] * TREES
    with torch.no_grad():
        prediction = torch.sigmoid(head(found.hidden))[found.root]
    for easy in (0, 1):
        right = (1 + easy) / 3
        assert prediction[easy::2].tolist() == pytest.approx([right] * (TREES // 2), abs=0.1)
