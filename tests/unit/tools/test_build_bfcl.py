"""BFCL's tasks as shards: nothing of a held-out family is trained on."""

import json
from pathlib import Path

import pytest

pytest.importorskip("bfcl_eval")

from megatron_trace.data.tasks import load_tasks
from megatron_trace.envs.bfcl.tasks import CATEGORIES, read_category


@pytest.fixture(scope="module")
def built(load_tool, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bfcl")
    load_tool("build_bfcl").build(folder)
    return folder


def test_every_task_is_in_one_set_as_it_was(built: Path) -> None:
    train = load_tasks(f"{built}/train_*-*.tar")
    held = [task for name in CATEGORIES for task in load_tasks(f"{built}/heldout_{name}-*.tar")]
    read = {task["id"]: task for name in CATEGORIES for task in read_category(name)}
    assert {task["id"]: task for task in train + held} == read
    assert len(train) + len(held) == len(read) == 4_291
    assert 0.15 < len(held) / len(read) < 0.35


def test_a_family_is_on_one_side(built: Path) -> None:
    def marks(tasks: list[dict]) -> set[str]:
        found = set()
        for task in tasks:
            if "multi_turn" in task["id"]:
                found.add(task["id"].rsplit("_", 1)[1])
            else:
                found.add(json.dumps(task["question"]).lower())
                found |= {json.dumps(doc, sort_keys=True) for doc in json.loads(task["function"])}
        return found

    assert not marks(load_tasks(f"{built}/train_*-*.tar")) & marks(
        load_tasks(f"{built}/heldout_*-*.tar")
    )


def test_the_split_is_fixed(built: Path) -> None:
    manifest = json.loads((built / "manifest.json").read_text())
    assert manifest["package"] == "bfcl-eval==2026.3.23"
    assert manifest["tasks"]["multi_turn_base"] == {"train": 152, "heldout": 48}
    assert manifest["tasks"]["live_multiple"] == {"train": 809, "heldout": 244}


def test_tasks_that_share_a_question_or_a_function_are_a_family(load_tool) -> None:
    def task(id: str, question: str, *functions: str) -> dict:
        docs = [{"name": name} for name in functions]
        return {
            "id": id,
            "category": "multiple",
            "question": question,
            "function": json.dumps(docs),
        }

    tasks = [task("c", "x", "f"), task("b", "y", "f", "g"), task("d", "Y", "h"), task("a", "z")]
    turns = [{"id": f"multi_turn_{name}_7", "category": "multi_turn_base"} for name in "xy"]
    assert load_tool("build_bfcl").families([*tasks, *turns]) == {
        "a": "a", "b": "b", "c": "b", "d": "b",
        "multi_turn_x_7": "multi_turn_x_7", "multi_turn_y_7": "multi_turn_x_7",
    }  # fmt: skip
