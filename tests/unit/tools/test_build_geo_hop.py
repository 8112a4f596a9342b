"""GeoHop: true chains, a clean split, and the same bytes from the same seed."""

from collections import Counter
from itertools import combinations

import pytest

from megatron_trace.data.tasks import load_tasks
from megatron_trace.envs.builtin.search_qa import SearchQA


def read_sets(folder):
    names = {path.name.partition("-")[0] for path in folder.glob("*.tar")} - {"corpus"}
    return {name: load_tasks(str(folder / f"{name}-*.tar")) for name in sorted(names)}


@pytest.fixture(scope="module")
def sets(geo_hop):
    return read_sets(geo_hop)


@pytest.fixture(scope="module")
def wide(load_tool, tmp_path_factory):
    tool, folder = load_tool("build_geo_hop"), tmp_path_factory.mktemp("geo_hop_wide")
    # A tenth of the tasks: finding all of 12 hops takes a minute.
    broad = {hops: count // 10 for hops, count in tool.WIDE.train["broad"].items()}
    tool.build(folder, 0, tool.TaskSets(tool.WIDE.train | {"broad": broad}, 6, strict=True))
    return folder


@pytest.fixture(scope="module")
def wide_sets(wide):
    return read_sets(wide)


@pytest.fixture(scope="module")
def corpus(geo_hop):
    return load_tasks(str(geo_hop / "corpus-*.tar"))


@pytest.fixture(scope="module")
def wide_corpus(wide):
    return load_tasks(str(wide / "corpus-*.tar"))


def test_the_same_seed_gives_the_same_bytes(load_tool, geo_hop, tmp_path) -> None:
    load_tool("build_geo_hop").build(tmp_path, seed=0)
    for path in geo_hop.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_titles_are_unique_and_names_are_plain(corpus) -> None:
    titles = [document["title"] for document in corpus]
    assert len(set(titles)) == len(titles)
    assert all(title.isascii() and title == title.strip() for title in titles)


def test_every_chain_follows_the_documents_to_the_answer(
    sets, wide_sets, corpus, wide_corpus
) -> None:
    for rows, documents in ((sets, corpus), (wide_sets, wide_corpus)):
        fields = {document["title"]: document["fields"] for document in documents}
        for task in (task for tasks in rows.values() for task in tasks):
            steps = zip(task["chain"][:-1], task["relations"], task["chain"][1:], strict=True)
            assert all(fields[subject][relation] == value for subject, relation, value in steps)
            assert task["answers"] == task["chain"][-1:]
            assert task["hops"] == len(task["relations"])
            assert len(set(task["chain"])) == len(task["chain"])


def test_no_relation_of_a_wide_task_can_be_left_out(wide_sets, wide_corpus) -> None:
    fields = {document["title"]: document["fields"] for document in wide_corpus}

    def follow(title, relations):
        for relation in relations:
            title = fields.get(title, {}).get(relation)
        return title

    for task in (task for tasks in wide_sets.values() for task in tasks[:20]):
        for kept in range(task["hops"]):
            for relations in combinations(task["relations"], kept):
                assert follow(task["chain"][0], relations) != task["answers"][0], task["question"]


def test_the_next_city_north_or_east_is_the_nearest_that_way_in_the_country(wide_corpus) -> None:
    fields = {document["title"]: document["fields"] for document in wide_corpus}
    assert fields["Lyon"]["next city north"] == "Nantes"
    assert fields["Perth"]["next city east"] == "Adelaide"
    for facts in fields.values():
        for relation in ("next city north", "next city east"):
            if relation in facts:
                assert fields[facts[relation]]["country"] == facts["country"]


def test_held_out_entities_are_in_no_training_chain(sets, corpus) -> None:
    titles = {document["title"] for document in corpus}
    trained = {name for task in sets["train"] for name in task["chain"]} & titles
    for hops in range(1, 5):
        tasks = sets[f"heldout_{hops}"]
        assert len(tasks) >= 120 and {task["hops"] for task in tasks} == {hops}
        assert not trained & {name for task in tasks for name in task["chain"]}


def test_wide_tasks_have_1_to_12_hops_in_the_same_shares(wide_sets) -> None:
    by_hops = {name: Counter(task["hops"] for task in wide_sets[name]) for name in wide_sets}
    broad, recurring = by_hops.pop("broad"), by_hops.pop("recurring")
    assert set(broad) == set(recurring) == set(range(1, 13))
    for hops in broad:
        shares = [found[hops] / found.total() for found in (broad, recurring)]
        assert shares[0] == pytest.approx(shares[1], abs=0.01)
    assert by_hops == {f"heldout_{hops}": {hops: 6} for hops in range(1, 13)}


def test_the_wide_tasks_as_shipped_are_many_where_they_must_be(load_tool) -> None:
    wide = load_tool("build_geo_hop").WIDE
    assert sum(wide.train["broad"].values()) >= 6_000
    assert 180 <= sum(wide.train["recurring"].values()) <= 220
    assert wide.heldout * 12 >= 600


def test_the_short_tasks_are_those_of_1_and_2_hops(load_tool, sets, tmp_path) -> None:
    tool = load_tool("build_geo_hop")
    tool.build(tmp_path, 0, tool.SHORT)
    short = read_sets(tmp_path)
    assert short.pop("train") == [task for task in sets["train"] if task["hops"] <= 2]
    assert short == {name: sets[name] for name in ("heldout_1", "heldout_2")}


def test_all_folders_hold_out_the_same_entities(sets, wide_sets, corpus) -> None:
    heldout = {document["title"] for document in corpus if document["heldout"]}
    for name, tasks in (sets | wide_sets).items():
        entities = {title for task in tasks for title in task["chain"][:-1]}
        assert entities <= heldout if name.startswith("heldout") else not entities & heldout


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
