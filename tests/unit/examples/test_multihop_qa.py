"""Rows as the publishers write them become tasks; by hand, in the published formats."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from megatron_trace.config import EnvironmentConfig
from megatron_trace.config.functions import find_function
from megatron_trace.data.task_rows import task_rows
from megatron_trace.envs import make_environments
from tests.unit.examples.multihop_rows import (
    BAMBOOGLE,
    FLASHRAG,
    HOTPOT,
    HOTPOT_PARQUET,
    MUSIQUE,
    SEARCH_R1,
    TWO_WIKI,
    TWO_WIKI_TEXTS,
)

ROOT = Path(__file__).parents[3]
FILE = ROOT / "examples/data/multihop_qa.py"


def tasks(folder: Path, function: str, rows: list[Any], parquet: bool) -> list[dict[str, Any]]:
    """The rows, written and read again with `data.map`."""
    if parquet:
        path = folder / "train.parquet"
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path = folder / "train.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    problems: list[str] = []
    found = [
        row.content
        for row in task_rows(
            str(path), problems, find_function("data.map", f"{FILE}:{function}", 1)
        )
    ]
    assert problems == []
    return found


@pytest.mark.parametrize("parquet", [True, False])
@pytest.mark.parametrize(
    ("function", "row", "task"),
    [
        ("hotpotqa", HOTPOT_PARQUET, ("5a7a06935542990198eaf050", ["Arthur's Magazine"])),
        ("two_wiki", TWO_WIKI_TEXTS, ("8813f87c0bdd11eba7f7acde48001122", ["Małgorzata Braunek"])),
        (
            "two_wiki",
            TWO_WIKI_TEXTS | {"answer": ["Małgorzata Braunek"]},
            ("8813f87c0bdd11eba7f7acde48001122", ["Małgorzata Braunek"]),
        ),
        ("musique", MUSIQUE, ("2hop__482757_12019", ["Boston, Massachusetts", "Boston"])),
        ("bamboogle", BAMBOOGLE, ("train-1", ["Richard Nixon"])),
        ("search_r1", SEARCH_R1, ("nq-train_0", ["December 1972", "14 December 1972 UTC"])),
        ("search_r1", FLASHRAG, ("dev_3", ["Chief of Protocol"])),
    ],
)
def test_a_published_row_is_a_task(
    tmp_path: Path, function: str, row: Any, task: Any, parquet: bool
) -> None:
    (found,) = tasks(tmp_path, function, [row], parquet)
    assert (found["id"], found["answers"]) == task
    assert found.keys() == {"id", "question", "answers"} and found["question"].endswith("?")
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"title": "any", "text": "thing"}\n')
    options = {"search_chat": {"corpus": str(corpus)}}
    make_environments(EnvironmentConfig("search_chat", 4, options))().check_task(found)


@pytest.mark.parametrize(("function", "row"), [("hotpotqa", HOTPOT), ("two_wiki", TWO_WIKI)])
def test_the_authors_own_files_have_other_ids(tmp_path: Path, function: str, row: Any) -> None:
    (found,) = tasks(tmp_path, function, [row], parquet=False)
    assert found["id"] == row["_id"]


@pytest.mark.parametrize(
    ("function", "row"),
    [
        ("hotpotqa", HOTPOT | {"answer": None}),
        ("hotpotqa", {key: one for key, one in HOTPOT.items() if key != "answer"}),
        ("musique", MUSIQUE | {"answerable": False}),
        ("search_r1", SEARCH_R1 | {"golden_answers": ["The", "?"]}),
    ],
)
def test_questions_without_an_answer_are_left_out(tmp_path: Path, function: str, row: Any) -> None:
    assert tasks(tmp_path, function, [row], parquet=False) == []


@pytest.mark.parametrize(
    "truth",
    [
        {"target": ["a b", "c"]},
        json.dumps({"target": ["a b", "c"]}),
        ["a b", "c"],
    ],
)
@pytest.mark.parametrize("as_text", [True, False])
def test_answers_in_the_reward_model_alone_are_found(
    tmp_path: Path, truth: Any, as_text: bool
) -> None:
    row = {key: SEARCH_R1[key] for key in ("id", "data_source", "prompt")}
    model = {"ground_truth": truth, "style": "rule"}
    row["reward_model"] = json.dumps(model) if as_text else model
    (found,) = tasks(tmp_path, "search_r1", [row], parquet=True)
    assert found["answers"] == ["a b", "c"]
    assert found["question"] == "total number of death row inmates in the us?"


def test_ids_of_search_r1s_sources_do_not_meet(tmp_path: Path) -> None:
    rows = [SEARCH_R1, SEARCH_R1 | {"data_source": "hotpotqa"}]
    found = tasks(tmp_path, "search_r1", rows, parquet=True)
    assert [task["id"] for task in found] == ["nq-train_0", "hotpotqa-train_0"]


def test_a_row_of_another_format_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(json.dumps(BAMBOOGLE) + "\n")
    problems: list[str] = []
    to_task = find_function("data.map", f"{FILE}:musique", 1)
    assert list(task_rows(str(tmp_path / "train.jsonl"), problems, to_task)) == []
    assert "line 1" in problems[0] and "KeyError: 'question'" in problems[0]


@pytest.mark.parametrize(
    ("row", "first"),
    [
        (HOTPOT, ("Arthur's Magazine", "It was a periodical. It merged.")),
        (HOTPOT_PARQUET, ("Arthur's Magazine", "It was a periodical. It merged.")),
        (TWO_WIKI_TEXTS, ("Xawery Żuławski", "He is a director. He was born.")),
        (MUSIQUE, ("Steel City", "A song.")),
    ],
)
def test_the_paragraphs_of_the_questions_are_a_corpus(
    tmp_path: Path, row: Any, first: tuple[str, str]
) -> None:
    write = find_function("corpus", f"{FILE}:write_corpus", 2).function
    (tmp_path / "raw.jsonl").write_text((json.dumps(row) + "\n") * 2)
    assert write(str(tmp_path / "raw.jsonl"), tmp_path / "corpus.jsonl") == 2
    documents = [json.loads(line) for line in (tmp_path / "corpus.jsonl").open()]
    assert (documents[0]["title"], documents[0]["text"]) == first
