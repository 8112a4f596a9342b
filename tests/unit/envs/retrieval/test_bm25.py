"""An index on the disk finds what one in memory finds; a damaged one is refused."""

import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from megatron_trace.envs.retrieval.bm25 import SearchIndex
from megatron_trace.envs.retrieval.index_folder import build_index
from megatron_trace.envs.retrieval.passages import Passage, passage_of_row
from megatron_trace.files.problems import BadData

WORDS = ("paris", "lyon", "the", "capital", "of", "france", "City", "ß", "rhône")
texts = st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join)
passages = st.builds(Passage, texts, texts)

PASSAGES = [
    Passage("Lyon", "A city in France. \u2028 Two lines\nhere."),
    Passage("Paris", "The capital of France."),
    Passage("The Paris!", "A hotel."),
    Passage("", "no title"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("index") / "folder"
    assert build_index(folder, iter(PASSAGES), "by hand") == len(PASSAGES)
    return folder


@given(st.lists(passages, min_size=1, max_size=12), st.lists(texts, min_size=1, max_size=4))
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_disk_and_memory_find_the_same(tmp_path: Path, corpus: Any, queries: Any) -> None:
    corpus = [*corpus, Passage("end", "some words")]
    build_index(tmp_path / "folder", corpus, "")
    disk, memory = SearchIndex.from_folder(tmp_path / "folder"), SearchIndex.of_passages(corpus)
    for query in queries:
        for top_k in (1, 3):
            assert disk.search(query, top_k) == memory.search(query, top_k)


def test_every_passage_comes_back_as_it_was(folder: Path) -> None:
    index = SearchIndex.from_folder(folder)
    assert list(index.passages) == PASSAGES
    # Titles are compared without articles and punctuation, and keep the order of the corpus.
    assert index.search("paris", 2) == (PASSAGES[1], PASSAGES[2])
    found = index.search("paris", 9)
    assert found[:2] == (PASSAGES[1], PASSAGES[2]) and len(set(found)) == len(found)
    # What has no title is not found by a query of which nothing is left.
    assert index.search("the", 9)[0] != PASSAGES[3] and index.search("", 9) == ()


def test_passages_of_one_title_keep_their_order(tmp_path: Path) -> None:
    corpus = [Passage("Paris" if n % 3 else f"Town {n}", f"piece {n}") for n in range(300)]
    build_index(tmp_path / "folder", corpus, "")
    assert list(SearchIndex.from_folder(tmp_path / "folder").search("paris", 200)) == [
        passage for passage in corpus if passage.title == "Paris"
    ]


def test_scores_never_rise(folder: Path) -> None:
    scores = [score for _, score in SearchIndex.from_folder(folder).hits("the Paris of France", 4)]
    assert scores == sorted(scores, reverse=True) and len(scores) > 1


def test_threads_read_side_by_side(folder: Path) -> None:
    stored = SearchIndex.from_folder(folder).passages
    wrong = []

    def read(start: int) -> None:
        for number in range(2_000):
            place = (start + number) % len(PASSAGES)
            if stored[place] != PASSAGES[place]:
                wrong.append(place)

    threads = [threading.Thread(target=read, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(
    "name",
    ["index.json", "passages.jsonl", "offsets.npy", "title_hashes.npy", "title_passages.npy",
     "data.csc.index.npy", "indices.csc.index.npy", "vocab.index.json", "params.index.json"],
)  # fmt: skip
@pytest.mark.parametrize("lost", [True, False])
def test_an_index_that_is_not_whole_is_one_line(
    folder: Path, tmp_path: Path, name: str, lost: bool
) -> None:
    shutil.copytree(folder, tmp_path / "folder")
    file = tmp_path / "folder" / name
    file.unlink() if lost else os.truncate(file, file.stat().st_size * 2 // 3)
    with pytest.raises(BadData, match=r"tools/serve_retriever\.py --build-only") as caught:
        SearchIndex.from_folder(tmp_path / "folder")
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_files_of_two_indexes_do_not_fit_together(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "folder")
    (tmp_path / "folder" / "index.json").write_text(json.dumps({"format": 1, "passages": 5}))
    with pytest.raises(BadData, match=r"its files hold \[4\] passages, not 5"):
        SearchIndex.from_folder(tmp_path / "folder")


def test_an_index_of_vectors_is_not_opened(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "folder")
    about = {"format": 1, "passages": 4, "dense": {}}
    (tmp_path / "folder" / "index.json").write_text(json.dumps(about))
    with pytest.raises(BadData, match="holds vectors; serve it"):
        SearchIndex.from_folder(tmp_path / "folder")


def test_another_format_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "folder")
    (tmp_path / "folder" / "index.json").write_text(json.dumps({"format": 0}))
    with pytest.raises(BadData, match="is not of format 1"):
        SearchIndex.from_folder(tmp_path / "folder")


def test_nothing_is_left_of_an_index_that_cannot_be_made(tmp_path: Path) -> None:
    for corpus in ([], [Passage("x", "1 2")]):
        with pytest.raises(ValueError, match="words of two letters"):
            build_index(tmp_path / "folder", corpus, "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("row", "passage"),
    [
        ({"title": "T", "text": "x", "id": 1}, Passage("T", "x")),
        ({"id": "0", "contents": '"Anarchism"\nIt is'}, Passage("Anarchism", "It is")),
        ({"contents": "only text"}, Passage("", "only text")),
    ],
)
def test_a_row_of_a_corpus_is_a_passage(row: Any, passage: Passage) -> None:
    assert passage_of_row(row) == passage


@pytest.mark.parametrize(
    "row", [{"id": 1, "title": "x"}, {"title": "T"}, {"contents": 3}, {"title": "T", "text": " "}]
)
def test_a_row_without_text_is_refused(row: Any) -> None:
    with pytest.raises(ValueError, match="text"):
        passage_of_row(row)
