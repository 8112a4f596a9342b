"""The example of an environment of one's own on the real stack: tools are called, and answered."""

import json

import pytest

from megatron_trace.models.chat import load_codec
from megatron_trace.tree import RolloutTree, load_trees
from tests.system.program import ROOT, finish

EXAMPLE = ROOT / "examples/environment"


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> list[RolloutTree]:
    """Those of one step of TreePO, which continues rollouts from their turns."""
    run = tmp_path_factory.mktemp("runs") / "shop"
    finish(
        run,
        "--config",
        str(EXAMPLE / "shop.yaml"),
        "run.steps=1",
        "evaluation.every=0",
        "allocation.strategy=treepo",
        "checkpoint.export_hf_every=0",
    )
    row = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    assert row["failed_rollouts"] == 0 and 0 < row["environment_share"] < 1
    return load_trees(run / "trees" / "step_00001.jsonl.gz")


def test_tools_are_called_and_answered_between_the_sampled_tokens(
    trees: list[RolloutTree],
) -> None:
    codec = load_codec(EXAMPLE / "start_policy")
    end = codec.token_id("<|im_end|>")
    turns = [turn for tree in trees for turn in tree.turns[1:]]
    inner = [turn for turn in turns if not turn.terminal]
    assert len(inner) > 10
    for turn in inner:
        # The policy ended its message itself; what follows is not its own.
        assert turn.action_ids.count(end) == 1 and turn.action_ids[-1] == end
        text = codec.decode(turn.observation_ids)
        assert text.startswith("\n<|im_start|>user\n<tool_response>\n")
        assert text.endswith("</tool_response><|im_end|>\n<|im_start|>assistant\n")
    calls = [codec.decode(turn.action_ids) for turn in inner]
    assert any('"name": "price"' in call for call in calls)
    assert any('"name": "multiply_and_add"' in call for call in calls)


def test_rollouts_continue_from_the_middle_of_a_chat(trees: list[RolloutTree]) -> None:
    anchors = [rollout.anchor for tree in trees for rollout in tree.rollouts]
    assert any(anchor > 0 for anchor in anchors)
