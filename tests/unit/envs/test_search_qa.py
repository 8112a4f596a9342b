"""Search question answering: the episode, its reward, its forks, and what a search finds."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from megatron_trace.config import EnvironmentConfig, SettingError
from megatron_trace.data.tasks import write_shards
from megatron_trace.envs import Environment, make_environments
from megatron_trace.envs.answer_scores import exact_match, normalize_answer
from megatron_trace.envs.builtin.search_qa import SEARCH_R1_INSTRUCTION
from megatron_trace.envs.retrieval.bm25 import SearchIndex
from megatron_trace.files.problems import BadData

DOCUMENTS = [
    {"title": "Lyon", "text": "A city . Country: France . Next larger city: Marseille ."},
    {"title": "France", "text": "A country . Capital: Paris . Currency: Euro ."},
    {"title": "Guinea", "text": "A country . Capital: Conakry . Currency: Franc ."},
    {"title": "Equatorial Guinea", "text": "A country . Capital: Malabo . Currency: Franc ."},
]
TASK = {
    "id": "t",
    "question": "What is the capital of the country of Lyon ?",
    "answers": ["Paris"],
    "hops": 2,
}


def search_qa(max_turns: int = 6, **options: Any) -> Callable[[], Environment]:
    return make_environments(EnvironmentConfig("search_qa", max_turns, {"search_qa": options}))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("corpus") / "corpus-000000.tar"
    with tarfile.open(path, "w") as tar:
        for number, document in enumerate(DOCUMENTS):
            data = json.dumps(document).encode()
            member = tarfile.TarInfo(f"{number}.json")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return str(path.with_name("corpus-*.tar"))


@pytest.fixture
def make(corpus: str):
    return search_qa(corpus=corpus, top_k=1, max_turns=3, instruction="")


def test_the_prompt_is_instruction_and_question(corpus) -> None:
    episode = search_qa(corpus=corpus)()
    assert episode.reset(TASK) == [
        {"role": "user", "content": SEARCH_R1_INSTRUCTION + TASK["question"]}
    ]


def test_search_then_right_answer_earns_one(make) -> None:
    episode = make()
    episode.reset(TASK)
    found = episode.step("I need the country of Lyon. <search> Lyon </search>")
    assert found.observation == (
        "\n<information> Doc 1(Title: Lyon) A city . Country: France . Next larger city: Marseille . "
        "</information>\n"
    )
    assert (found.done, found.reward, found.malformed) == (False, 0.0, False)
    end = episode.step("<answer> the paris. </answer>")
    assert (end.observation, end.done, end.reward, end.malformed) == ("", True, 1.0, False)


def test_wrong_answer_ends_without_reward(make) -> None:
    episode = make()
    episode.reset(TASK)
    end = episode.step("<answer> Lyon </answer>")
    assert (end.done, end.reward, end.malformed) == (True, 0.0, False)


def test_malformed_turn_ends_the_episode_and_says_so(make) -> None:
    episode = make()
    episode.reset(TASK)
    end = episode.step("Paris, I believe.")
    assert (end.done, end.reward, end.malformed) == (True, 0.0, True)


def test_the_last_allowed_turn_must_answer(make) -> None:
    episode = make()
    episode.reset(TASK)
    results = [episode.step("<search> Lyon </search>") for _ in range(3)]
    assert [result.done for result in results] == [False, False, True]
    assert (results[-1].observation, results[-1].reward, results[-1].malformed) == ("", 0.0, False)


def test_forked_episode_sees_what_the_original_saw(make) -> None:
    original, fork = make(), make()
    original.reset(TASK)
    original.step("<search> Lyon </search>")
    fork.restore(json.loads(json.dumps(original.snapshot())))
    for action in ("<search> France </search>", "<search> Guinea </search>"):
        assert fork.step(action) == original.step(action)
    assert fork.snapshot() == original.snapshot()


def test_a_snapshot_is_not_changed_by_later_steps(make) -> None:
    episode = make()
    episode.reset(TASK)
    before = episode.snapshot()
    episode.step("<search> Lyon </search>")
    assert before == {"task": TASK, "turns": 0}


def test_an_exact_title_comes_first_and_words_find_the_rest(corpus) -> None:
    index = SearchIndex.from_shards(corpus)
    assert [title for title, _ in index.search("guinea", 2)] == ["Guinea", "Equatorial Guinea"]
    assert index.search("Malabo capital", 1)[0][0] == "Equatorial Guinea"


def test_a_search_without_a_hit_says_so(make) -> None:
    episode = make()
    episode.reset(TASK)
    assert (
        episode.step("<search> zzz </search>").observation
        == "\n<information> Nothing found . </information>\n"
    )


def test_long_observations_are_cut(corpus) -> None:
    episode = search_qa(corpus=corpus, top_k=4, max_observation_chars=10)()
    episode.reset(TASK)
    assert (
        episode.step("<search> Lyon </search>").observation
        == "\n<information> Doc 1(Titl </information>\n"
    )


def test_several_documents_are_numbered(corpus) -> None:
    episode = search_qa(corpus=corpus, top_k=2)()
    episode.reset(TASK)
    observation = episode.step("<search> Guinea </search>").observation
    assert (
        "Doc 1(Title: Guinea)" in observation and "Doc 2(Title: Equatorial Guinea)" in observation
    )


def test_normalisation_is_that_of_squad() -> None:
    assert normalize_answer("  The  U.S. Dollar ") == "us dollar"
    assert exact_match("an Euro", ["Franc", "euro"]) and not exact_match("Euros", ["Euro"])


def test_a_missing_corpus_is_named(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing-\*"):
        search_qa(corpus=str(tmp_path / "nothing-*.tar"))


@pytest.mark.parametrize("option", ["top_k", "max_observation_chars"])
def test_numbers_must_be_positive(corpus, option) -> None:
    with pytest.raises(SettingError, match=rf"search_qa\.{option} = 0: must be at least 1"):
        search_qa(corpus=corpus, **{option: 0})


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"question": None}, "question must be a text, not None"),
        ({"question": " "}, "question must be a text"),
        ({"question": ["Who ?"]}, "question must be a text"),
        ({"answers": "the"}, "answers must be a list of texts, at least one, not 'the'"),
        ({"answers": []}, r"answers must be a list of texts, at least one, not \[\]"),
        ({"answers": 1969}, "answers must be a list"),
        ({"answers": {"Paris": 1}}, "answers must be a list"),
        ({"answers": ["Paris", 1969]}, "every answer must be a text that holds a word, not 1969"),
        ({"answers": ["The ."]}, "every answer must be a text that holds a word, not 'The .'"),
    ],
)
def test_a_task_that_cannot_be_judged_is_refused(corpus, change, wrong) -> None:
    episode = search_qa(corpus=corpus)()
    episode.check_task(TASK)
    with pytest.raises(ValueError, match=wrong):
        episode.check_task(TASK | change)


@pytest.mark.parametrize("key", ["question", "answers"])
def test_a_task_without_question_or_answers_is_refused(corpus, key) -> None:
    task = {name: value for name, value in TASK.items() if name != key}
    with pytest.raises(ValueError, match=key):
        search_qa(corpus=corpus)().check_task(task)


@pytest.mark.parametrize(
    ("documents", "said"),
    [
        ([], r"holds no KEY\.json"),
        ([{"title": "x", "text": "1 2"}], "words of two letters or more, and there is none"),
        ([DOCUMENTS[0], {"title": "x"}], r"000000001\.json: has no text$"),
        ([DOCUMENTS[0], {"title": "x", "text": " "}], r"000000001\.json: text must be a text"),
        ([DOCUMENTS[0], {"title": 7, "text": "two words"}], r"title must be a text, not 7"),
    ],
)
def test_a_corpus_that_cannot_be_searched_is_one_line(tmp_path, documents, said) -> None:
    write_shards(documents or DOCUMENTS, str(tmp_path / "corpus-%d.tar"))
    if not documents:
        tarfile.open(tmp_path / "corpus-0.tar", "w").close()
        (tmp_path / "shards.json").unlink()
    with pytest.raises(BadData, match=said) as caught:
        search_qa(corpus=str(tmp_path / "corpus-*.tar"))
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)
