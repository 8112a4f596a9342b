import json
import math
from dataclasses import replace

import numpy as np
import pytest

from megatron_trace.report.metrics import calibration_bins, tree_metrics
from megatron_trace.report.metrics_file import MetricsWriter, read_metrics
from megatron_trace.tree import RolloutTree
from tests.unit.report.fake_run import answer, root, search, turn


def flipped_tree() -> RolloutTree:
    """Two failed bare rollouts; one of two continuations of the first one's search succeeds."""
    tree = root(0.25)
    tree.graft(0, [search("Lyon", 0.75), answer("Graz", 0.0)])
    tree.graft(0, [answer("Porto", 0.0)])
    tree.graft(1, [answer("Paris", 1.0)])
    tree.graft(1, [answer("Split", 0.0)])
    return tree


def test_bare_rollouts_are_measured_apart_from_what_continuations_add() -> None:
    metrics = tree_metrics([flipped_tree()])
    assert metrics["success_rate"] == 0.0
    assert (metrics["effective_ratio_bare"], metrics["effective_ratio"]) == (0.0, 1.0)
    assert metrics["mixed_share"] == 1.0
    assert (metrics["bare_rollouts"], metrics["continuations"]) == (2, 2)
    assert metrics["mixed_probability"] == pytest.approx(1 - 0.25**2 - 0.75**2)


def test_repeated_histories_are_counted() -> None:
    tree = flipped_tree()
    assert tree_metrics([tree])["repeated_histories"] == 0.0
    tree.graft(0, [search("Lyon", 0.5), answer("Paris", 1.0)])
    assert tree_metrics([tree])["repeated_histories"] == 0.5


def test_flips_are_counted_against_the_rollout_that_was_continued() -> None:
    metrics = tree_metrics([flipped_tree()])
    assert metrics["continuation_flip_rate"] == 0.5
    assert metrics["predicted_flip_rate"] == 0.75


def test_tokens_are_counted_where_they_were_sampled() -> None:
    tree = flipped_tree()
    metrics = tree_metrics([tree])
    sampled = [len(one.action_ids) for one in tree.turns]
    assert metrics["sampled_tokens"] == sum(sampled)
    assert metrics["sampled_tokens_continuations"] == sampled[4] + sampled[5]
    assert metrics["tokens_per_rollout"] == sum(sampled) / 4
    assert metrics["history_tokens_max"] == max(
        len(tree.history_ids(leaf)) for leaf in tree.leaves()
    )
    assert metrics["turns_per_rollout"] == (2 + 1 + 2 + 2) / 4


def test_malformed_turns_are_a_share_of_the_sampled_turns() -> None:
    tree = root()
    tree.graft(0, [search("Lyon", 0.5), turn("hm", terminal=True, malformed=True)])
    assert tree_metrics([tree])["malformed_share"] == 0.5


def test_failed_calls_of_tools_are_summed_over_all_turns() -> None:
    tree = root()
    tree.graft(0, [replace(search("Lyon", 0.5), tool_errors=2), turn("x", terminal=True)])
    tree.graft(0, [replace(turn("y", terminal=True), tool_errors=1)])
    assert tree_metrics([tree])["tool_errors"] == 3


def test_what_cannot_be_measured_has_no_key() -> None:
    tree = root(None)
    tree.graft(0, [answer("Paris", 1.0)])
    metrics = tree_metrics([tree])
    assert not [
        name for name in metrics if name.startswith(("predictor", "continuation_flip", "predicted"))
    ]
    assert all(math.isfinite(value) for value in metrics.values())
    assert tree_metrics([]) == {"active_tasks": 0.0, "bare_rollouts": 0.0, "continuations": 0.0}


def test_predictions_are_scored_against_rollouts_sampled_through_them_whatever_was_picked_for_expansion() -> (
    None
):
    metrics = tree_metrics([flipped_tree()])
    assert metrics["predictor_brier_root"] == pytest.approx(0.25**2)
    assert metrics["predictor_brier_prefix"] == pytest.approx(0.75**2)
    assert calibration_bins([flipped_tree()]) == [(0.25, 0.0, 1), (0.75, 0.0, 1)]


def test_a_torn_last_line_costs_only_itself(tmp_path) -> None:
    with MetricsWriter(tmp_path) as writer:
        writer.write({"step": 0, "entropy": 0.5})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1, "entr')
    assert [row["step"] for row in read_metrics(tmp_path)] == [0]
    with MetricsWriter(tmp_path) as writer:
        writer.write({"step": 1, "entropy": 0.4})
    assert [row["entropy"] for row in read_metrics(tmp_path)] == [0.5, 0.4]


def test_steps_after_the_checkpoint_are_forgotten_when_a_run_continues(tmp_path) -> None:
    rows = [
        {"step": 3, "entropy": 0.1},
        {"step": 3, "evaluation": {"mean": 0.5}},
        {"step": 4, "entropy": 0.2},
    ]
    with MetricsWriter(tmp_path) as writer:
        for row in rows:
            writer.write(row)
    with MetricsWriter(tmp_path, done=3) as writer:
        writer.write({"step": 4, "entropy": 0.3})
    assert read_metrics(tmp_path) == [*rows[:2], {"step": 4, "entropy": 0.3}]


def test_rows_reach_the_disk_before_the_writer_closes(tmp_path) -> None:
    writer = MetricsWriter(tmp_path)
    writer.write({"step": 0, "kl": np.float32(0.25), "events": ["a restart"]})
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {
        "step": 0,
        "kl": 0.25,
        "events": ["a restart"],
    }
    writer.close()
