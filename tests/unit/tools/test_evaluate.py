"""Scores of benchmarks, their lines and their table; what cannot be evaluated is one line."""

from pathlib import Path
from typing import Any

import evaluate
import pytest

from megatron_trace.rollout.evaluation import Item
from megatron_trace.rollout.types import SampledRollout
from megatron_trace.tree import Turn


def rollout(*rewards: float, f1: float = 0.0, malformed: bool = False) -> SampledRollout:
    """One turn of two tokens for each reward; the last one ends it."""
    turns = [Turn(-1, [1, 2], [0.0] * 2, [0] * 2, [3], tool_errors=1) for _ in rewards]
    turns[-1].terminal, turns[-1].reward, turns[-1].parts = True, rewards[-1], {"f1": f1}
    turns[-1].malformed = malformed
    return SampledRollout(turns, 0.5, 0, 0)


ITEMS = [
    Item("a", {"id": "0"}, 0.5, [rollout(0, 1, f1=0.5), rollout(0)]),
    Item("a", {"id": "1"}, 0.5, [rollout(0, malformed=True), rollout(0, 0, 0)], failed=1),
    Item("a", {"id": "2"}, None, [], failed=2),
]


class Codec:
    """Every token is a letter."""

    def decode(self, ids: list[int]) -> str:
        return "".join("xab|"[id] for id in ids)


def test_scores_are_means_over_what_came_to_its_end() -> None:
    found = evaluate.scores(ITEMS, 2)
    assert (found["tasks"], found["failed"]) == (2, 3)
    assert found["avg@2"] == 0.25 and found["pass@2"] == 0.5
    assert found["low"] == 0.0 and found["high"] == 0.5
    assert found["f1"] == 0.125
    assert (found["turns"], found["tokens"]) == (1.75, 3.5)
    assert found["malformed"] == pytest.approx(1 / 7)
    assert found["tool errors"] == 7


def test_a_line_holds_every_rollout() -> None:
    line = evaluate.line_of(ITEMS[0], Codec())  # type: ignore[arg-type]
    assert (line["benchmark"], line["id"], line["failed"]) == ("a", "0", 0)
    assert line["rollouts"][0] == {
        "reward": 1,
        "parts": {"f1": 0.5},
        "turns": 2,
        "tokens": 4,
        "malformed": 0,
        "tool_errors": 2,
        "text": "ab|ab|",
    }


def test_the_table_has_a_row_for_each_benchmark() -> None:
    table = evaluate.table_of({"a": evaluate.scores(ITEMS, 2), "all": evaluate.scores(ITEMS, 2)})
    assert table.row_count == 2
    titles = [column.header for column in table.columns]
    assert titles[:4] == ["benchmark", "tasks", "avg@2, 95 %", "pass@2"]
    assert next(iter(table.columns[2].cells)) == "0.250, 0.00–0.50"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--benchmarks", "only-a-path"], "--benchmarks = 'only-a-path': must be NAME=PATTERN"),
        (["--benchmarks", "a=nothing/*.jsonl"], "no such file"),
        (["--rollouts", "0", "--benchmarks", "a=b"], "--rollouts = 0: must be at least 1"),
        ([], "name benchmarks here or by --benchmarks"),
        (["allocation.bugdet=3"], "no such setting"),
    ],
)
def test_what_cannot_be_evaluated_is_one_line(
    tmp_path: Path, capsys: Any, arguments: list[str], message: str
) -> None:
    assert evaluate.main([*arguments, "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ") and message in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()
