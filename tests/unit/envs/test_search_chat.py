"""Both environments of multi-hop questions: the same retrievers, scores and failures."""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from megatron_trace.config import EnvironmentConfig, SettingError
from megatron_trace.envs import Environment, Reply, ToolCall, make_environments
from megatron_trace.envs.contract import check_contract
from megatron_trace.envs.results import checked_result
from megatron_trace.envs.retrieval import client
from megatron_trace.envs.retrieval.index_folder import build_index
from megatron_trace.envs.retrieval.passages import Passage, RetrieverFailed
from megatron_trace.rollout import episode as rollout_episode
from megatron_trace.rollout.episode import CallRules, Episode
from megatron_trace.rollout.failures import EpisodeFailed
from tests.unit.envs.retrieval.server import hits, serving

PASSAGES = [
    Passage("Lyon", "A city . Country: France ."),
    Passage("France", "A country . Capital: Paris ."),
    Passage("Guinea", "A country . Capital: Conakry ."),
]
TASK = {"id": "t", "question": "What is the capital of Lyon's country ?", "answers": ["Paris"]}
LYON = "Doc 1(Title: Lyon) A city . Country: France ."


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(rollout_episode, "RETRY_WAIT_S", 0.001)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    path.write_text("".join(json.dumps(one._asdict()) + "\n" for one in PASSAGES))
    return str(path)


def environment(name: str, **options: Any) -> Callable[[], Environment]:
    return make_environments(EnvironmentConfig(name, 4, {name: options}))


def searches(name: str, *queries: str) -> Any:
    """A turn that searches; a chat may do so several times."""
    if name == "search_qa":
        return f"<search> {queries[0]} </search>"
    calls = [ToolCall("search", {"query": one}, f"call_{n}") for n, one in enumerate(queries)]
    return Reply("", calls=tuple(calls))


def answers(name: str, answer: str) -> Any:
    return f"<answer> {answer} </answer>" if name == "search_qa" else Reply(answer)


both = pytest.mark.parametrize("name", ["search_qa", "search_chat"])


@both
def test_they_keep_the_contract(name: str, corpus: str) -> None:
    turns = [searches(name, "Lyon", "France"), searches(name, "zzz"), answers(name, "paris")]
    check_contract(environment(name, corpus=corpus), TASK, turns)


@both
def test_an_index_on_the_disk_and_a_server_show_what_the_corpus_shows(
    name: str, corpus: str, tmp_path: Path
) -> None:
    build_index(tmp_path / "index", PASSAGES, corpus)

    def found(request: Any, number: int) -> tuple[int, bytes]:
        documents = [one._asdict() for one in PASSAGES if one.title in request["queries"][0]]
        return 200, json.dumps({"result": [documents]}).encode()

    with serving(found) as server:
        places = [{"corpus": corpus}, {"retriever": str(tmp_path / "index")}]
        places.append({"retriever": server.url})
        seen = []
        for place in places:
            episode = environment(name, top_k=1, **place)()
            episode.reset(TASK)
            seen.append(episode.step(searches(name, "Lyon")).observation)
    assert seen[0] == seen[1] == seen[2] and LYON in str(seen[0])


@both
@pytest.mark.parametrize(("score", "reward"), [("em", 0.0), ("f1", 2 / 3), ("sub_em", 1.0)])
def test_the_score_is_chosen_and_all_are_in_the_metrics(
    name: str, corpus: str, score: str, reward: float
) -> None:
    episode = environment(name, corpus=corpus, score=score)()
    episode.reset(TASK)
    end = checked_result(episode.step(answers(name, "in Paris")), episode.chat)
    assert end.done and end.reward == pytest.approx(reward)
    assert end.parts == {"em": 0.0, "f1": pytest.approx(2 / 3), "sub_em": 1.0}


def test_an_unknown_score_is_refused(corpus: str) -> None:
    with pytest.raises(SettingError, match=r"search_chat.score = 'rouge': must be one of em, f1"):
        environment("search_chat", corpus=corpus, score="rouge")


@pytest.mark.parametrize(
    "text",
    ["Paris", "I found it. <answer> Paris </answer>", "<answer>x</answer><answer>Paris</answer>"],
)
def test_a_chats_answer_is_in_its_last_tags_or_the_whole_turn(corpus: str, text: str) -> None:
    episode = environment("search_chat", corpus=corpus)()
    episode.reset(TASK)
    assert episode.step(Reply(text)).reward == 1.0
    episode.reset(TASK)
    assert episode.step(Reply(f"{text} .... Lyon <answer> Lyon </answer>")).reward == 0.0


def test_a_malformed_call_costs_its_penalty_and_no_score(corpus: str) -> None:
    episode = environment("search_chat", corpus=corpus, malformed_penalty=0.25)()
    episode.reset(TASK)
    assert episode.step(Reply("", calls=(ToolCall("search", {}, "0"),))).malformed
    end = episode.step(Reply("Paris"))
    assert end.reward == 0.75
    assert end.parts == {"em": 1.0, "f1": 1.0, "sub_em": 1.0, "malformed_penalty": -0.25}


def test_a_chat_is_told_when_nothing_is_found(corpus: str) -> None:
    episode = environment("search_chat", corpus=corpus)()
    episode.reset(TASK)
    (message,) = episode.step(searches("search_chat", "zzz")).observation
    assert message["content"] == "Nothing found."


@both
@pytest.mark.parametrize(
    "broken", [(500, b"oh"), (200, b"<html>"), (200, b'{"result": [[], []]}'), (404, b"")]
)
def test_a_broken_server_fails_the_rollout_and_tells_the_policy_nothing(
    name: str, broken: tuple[int, bytes]
) -> None:
    with serving(hits("a")) as server:
        make = environment(name, retriever=server.url, retriever_retries=1)
        server.answer = lambda *_: broken
        episode = make()
        episode.reset(TASK)
        with pytest.raises(RetrieverFailed):
            episode.step(searches(name, "Lyon"))
        with pytest.raises(EpisodeFailed, match="step raised") as caught:
            asyncio.run(played(make, searches(name, "Lyon")))
    # In the first step 1 + 1 tries; in the worker's three tries of the step as many each.
    tries = 1 if broken[0] == 404 else 2
    assert len(server.asked) == 1 + tries + 3 * tries
    assert "RetrieverFailed" in caught.value.failure.text
    assert "\n" not in caught.value.failure.text


async def played(make: Callable[[], Environment], action: Any) -> Any:
    """One step as a worker takes it."""
    sample = make()
    worker = Episode(make, CallRules("search", sample.retryable, retries=2), "t")
    _, state = await worker.begin(TASK, lambda messages, tools: [1], 100)
    return await worker.step(state, action, lambda observation: [2])


@both
def test_a_step_that_is_tried_again_may_work(name: str) -> None:
    with serving(hits("a")) as server:
        make = environment(name, retriever=server.url, retriever_retries=0)
        server.answer = lambda _, number: (503, b"") if number < 4 else (200, hits("b"))
        step = asyncio.run(played(make, searches(name, "Lyon")))
    assert "Doc 1(Title: Tb) b" in str(step.result.observation)


def test_a_search_beyond_the_tools_limit_fails_the_rollout() -> None:
    def slow(request: Any, number: int) -> tuple[int, bytes]:
        time.sleep(0 if number == 1 else 0.6)
        return 200, hits("a")

    with serving(slow) as server:
        episode = environment("search_chat", retriever=server.url, tool_timeout_s=0.1)()
        episode.reset(TASK)
        with pytest.raises(TimeoutError, match=r"no result within 0.1 seconds"):
            episode.step(searches("search_chat", "Lyon"))


@both
def test_a_huge_passage_is_cut(name: str) -> None:
    with serving(hits("x" * 10**6)) as server:
        episode = environment(name, retriever=server.url)()
        episode.reset(TASK)
        assert len(str(episode.step(searches(name, "Lyon")).observation)) < 5_000


@both
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, r"corpus = '': must name data files, or \S+\.retriever the URL of a server"),
        ({"retriever": "ftp://x/retrieve"}, "must be http://HOST:PORT/retrieve, or a folder"),
        ({"retriever": "http://"}, "must be http://HOST:PORT/retrieve, or a folder"),
        ({"retriever": "nowhere"}, r"nowhere: holds no index \(index.json\)"),
        ({"retriever": "nowhere", "corpus": "x.jsonl"}, "leave one out"),
        ({"retriever": "http://127.0.0.1:9/retrieve", "retriever_retries": 0},
         "does not answer .*; start the server, or correct the URL"),
        ({"retriever": "http://[::1/retrieve", "retriever_retries": 0}, "does not answer"),
        ({"top_k": 0}, "top_k = 0: must be at least 1"),
        ({"retriever_timeout_s": 0}, "must be above 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_searched_is_one_line(name: str, options: Any, said: str) -> None:
    with pytest.raises(SettingError, match=said) as caught:
        environment(name, **options)
    assert "\n" not in str(caught.value) and f"environment.options.{name}." in str(caught.value)


@both
def test_a_task_that_cannot_be_judged_is_refused(name: str, corpus: str) -> None:
    episode = environment(name, corpus=corpus)()
    episode.check_task(TASK)
    with pytest.raises(ValueError, match="answers must be a list"):
        episode.check_task(TASK | {"answers": "Paris"})
