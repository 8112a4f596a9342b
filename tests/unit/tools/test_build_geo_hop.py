"""GeoHop: true chains, a clean split, and the same bytes from the same seed."""

import pytest

from megatron_trace.data.tasks import load_tasks
from megatron_trace.envs.builtin.search_qa import SearchQA

SETS = ["train", "heldout_1", "heldout_2", "heldout_3", "heldout_4"]


@pytest.fixture(scope="module")
def sets(geo_hop):
    return {name: load_tasks(str(geo_hop / f"{name}-*.tar")) for name in SETS}


@pytest.fixture(scope="module")
def corpus(geo_hop):
    return load_tasks(str(geo_hop / "corpus-*.tar"))


def test_the_same_seed_gives_the_same_bytes(load_tool, geo_hop, tmp_path) -> None:
    load_tool("build_geo_hop").build(tmp_path, seed=0)
    for path in geo_hop.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_titles_are_unique_and_names_are_plain(corpus) -> None:
    titles = [document["title"] for document in corpus]
    assert len(set(titles)) == len(titles)
    assert all(title.isascii() and title == title.strip() for title in titles)


def test_every_chain_follows_the_documents_to_the_answer(sets, corpus) -> None:
    fields = {document["title"]: document["fields"] for document in corpus}
    for tasks in sets.values():
        for task in tasks:
            steps = zip(task["chain"][:-1], task["relations"], task["chain"][1:], strict=True)
            assert all(fields[subject][relation] == value for subject, relation, value in steps)
            assert task["answers"] == task["chain"][-1:]
            assert task["hops"] == len(task["relations"])
            assert len(set(task["chain"])) == len(task["chain"])


def test_held_out_entities_are_in_no_training_chain(sets, corpus) -> None:
    titles = {document["title"] for document in corpus}
    trained = {name for task in sets["train"] for name in task["chain"]} & titles
    for hops in range(1, 5):
        tasks = sets[f"heldout_{hops}"]
        assert len(tasks) >= 120 and {task["hops"] for task in tasks} == {hops}
        assert not trained & {name for task in tasks for name in task["chain"]}


def test_questions_and_ids_are_unique(sets) -> None:
    tasks = [task for rows in sets.values() for task in rows]
    assert (
        len({task["id"] for task in tasks})
        == len({task["question"] for task in tasks})
        == len(tasks)
    )
    assert len(sets["train"]) >= 4_000


def test_the_environment_finds_every_document_by_its_title(geo_hop, corpus) -> None:
    options = SearchQA.Options(corpus=str(geo_hop / "corpus-*.tar"), top_k=1)
    episode = SearchQA.maker(options, max_turns=9_999)()
    episode.reset({"question": "", "answers": []})
    for document in corpus[::50]:
        observation = episode.step(f"<search> {document['title']}</search>").observation
        assert f"Doc 1(Title: {document['title']}) {document['text']}" in observation
