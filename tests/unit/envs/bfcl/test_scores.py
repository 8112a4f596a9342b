"""The scores of recorded answers are those that bfcl-eval gives them."""

import json
import random
from collections import Counter

import pytest

pytest.importorskip("bfcl_eval")

from megatron_trace.envs.bfcl.schemas import tools_of
from megatron_trace.envs.bfcl.scores import turns_right
from megatron_trace.envs.bfcl.tasks import MULTI_TURN, SINGLE_TURN, docs_at_first
from megatron_trace.models.messages import Reply
from tests.unit.envs.bfcl.answers import (
    mutated,
    play,
    possible,
    replies,
    some,
    tool_calls,
    truth,
)
from tests.unit.envs.bfcl.official import accepts_calls, accepts_turns, schemas

JUDGED = [category for category in SINGLE_TURN if "relevance" not in category]

# All tasks take minutes: make test-all.
FEW = [pytest.param(20, 3), pytest.param(1, 12, marks=pytest.mark.slow)]


@pytest.mark.parametrize("category", MULTI_TURN)
@pytest.mark.parametrize(("every", "times"), FEW)
def test_turns_have_bfcls_verdict(category: str, every: int, times: int) -> None:
    verdicts: Counter[bool] = Counter()
    for task in some(category, every):
        for together in (True, False):
            turns = truth(task, together)
            official = accepts_turns(task, turns)
            # Two long contexts have a turn of 34 calls, which are too many for steps of one.
            assert official or any(len(turn) > 20 for turn in turns), task["id"]
            assert play(task, replies(turns)).reward == official, task["id"]
        names = [doc["name"] for doc in docs_at_first(task)]
        for number in range(times):
            rng = random.Random(f"{task['id']}/{number}")
            turns = truth(task, together=rng.random() < 0.5)
            for turn in rng.sample(turns, rng.choice((1, 1, len(turns)))):
                calls = mutated([call for step in turn for call in step], rng, names)
                turn[:] = [calls] if calls else []
            official = accepts_turns(task, turns)
            assert play(task, replies(turns)).reward == official, (task["id"], number)
            verdicts[official] += 1
    # Both kinds are compared, or the comparison says little.
    assert min(verdicts[True], verdicts[False]) > sum(verdicts.values()) / 10, verdicts


@pytest.mark.parametrize("category", JUDGED)
@pytest.mark.parametrize(("every", "times"), FEW)
def test_calls_have_bfcls_verdict(category: str, every: int, times: int) -> None:
    verdicts: Counter[bool] = Counter()
    for task in some(category, min(every, 4) if "parallel" in category else every):
        calls = possible(task)
        official = accepts_calls(task, calls)
        assert play(task, [Reply("", calls=tool_calls(calls))]).reward == official, task["id"]
        verdicts[official] += 1
        names = [doc["name"].replace(".", "_") for doc in docs_at_first(task)]
        for number in range(times):
            wrong = mutated(calls, random.Random(f"{task['id']}/{number}"), names)
            try:
                official = accepts_calls(task, wrong)
            # On such answers bfcl-eval ends with an error.
            except (AttributeError, TypeError, KeyError, IndexError):
                official = False
            assert play(task, [Reply("", calls=tool_calls(wrong))]).reward == official, task["id"]
            verdicts[official] += 1
    assert min(verdicts[True], verdicts[False]) > 0, verdicts


@pytest.mark.parametrize("category", ["irrelevance", "live_irrelevance", "live_relevance"])
def test_where_no_function_fits_no_call_is_right(category: str) -> None:
    for task in some(category, 8):
        called = play(task, [Reply("", calls=tool_calls([{"any": {}}]))]).reward
        silent = play(task, [Reply("I cannot.")]).reward
        assert (called, silent) == ((1, 0) if category == "live_relevance" else (0, 1))


@pytest.mark.parametrize("category", [*MULTI_TURN, *SINGLE_TURN])
def test_schemas_are_those_of_bfcls_handler(category: str) -> None:
    for task in some(category, 10):
        docs = [dict(doc) for doc in docs_at_first(task)]
        hint = " Note that the provided function is in Python 3 syntax."
        for ours, theirs in zip(tools_of(docs), schemas(docs), strict=True):
            theirs["function"]["description"] += hint
            for name, schema in theirs["function"]["parameters"]["properties"].items():
                schema.setdefault("description", name)
            assert ours == theirs


def test_nested_types_are_converted_as_deep_as_bfcl_does() -> None:
    rows = {"type": "array", "items": {"type": "tuple", "items": {"type": "any"}}}
    inner = {"type": "dict", "properties": {"x": {"type": "float", "description": "X."}}}
    properties = {
        "rows": rows,
        "records": {"type": "list", "items": inner},
        "record": inner,
        "odd": {"type": "HashMap"},
        "none": {},
    }
    for schema in properties.values():
        schema["description"] = "What it is."
    parameters = {"type": "dict", "properties": properties, "required": []}
    docs = [{"name": "a.b", "description": "Do it.", "parameters": parameters}]
    (ours,), (theirs,) = tools_of(docs), schemas(docs)
    assert ours["function"]["parameters"] == theirs["function"]["parameters"]
    assert ours["function"]["name"] == theirs["function"]["name"] == "a_b"
    assert docs[0]["parameters"] == parameters


def test_answers_on_which_bfcl_fails_are_wrong() -> None:
    records = {"type": "array", "items": {"type": "dict"}, "description": "Records."}
    doc = {"name": "f", "description": "F.", "parameters": {
        "type": "dict", "properties": {"records": records}, "required": ["records"]}}  # fmt: skip
    task = {
        "id": "simple_python_0", "category": "simple_python", "function": json.dumps([doc]),
        "question": [[{"role": "user", "content": "F?"}]],
        "ground_truth": [{"f": {"records": [[{"a": [1]}], ""]}}],
    }  # fmt: skip

    def reward(records: list) -> float:
        return play(task, [Reply("", calls=tool_calls([{"f": {"records": records}}]))]).reward

    assert reward([{"a": 1}]) == 1
    with pytest.raises(AttributeError):
        accepts_calls(task, [{"f": {"records": ["a"]}}])
    assert reward(["a"]) == 0


def test_a_state_that_bfcl_cannot_compare_is_wrong() -> None:
    task = some("multi_turn_base", 1)[0]
    loop = [{"mkdir": {"dir_name": "a"}}, {"cp": {"source": "a", "destination": "a"}}]
    task = task | {"ground_truth": [["mkdir('a')", "cp('a', 'a')"]] * 4}
    assert turns_right(task, [[["mkdir('a')", "cp('a', 'a')"]]] * 4) == 0
    with pytest.raises(RecursionError):
        accepts_turns(task, [[loop]] * 4)


def test_turns_right_counts_up_to_the_first_wrong_one() -> None:
    task = some("multi_turn_base", 1)[0]
    answers = [[turn] for turn in task["ground_truth"]]
    assert turns_right(task, answers) == 4
    assert turns_right(task, [*answers[:2], [], *answers[3:]]) == 2
    assert turns_right(task, answers[:3]) == 3
    assert turns_right(task, []) == 0
