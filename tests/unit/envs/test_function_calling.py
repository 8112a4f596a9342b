"""Episodes of BFCL: the user's turns, what ends them, and forks at every reply."""

import json
from typing import Any

import pytest

pytest.importorskip("bfcl_eval")

from megatron_trace.config import EnvironmentConfig
from megatron_trace.envs import make_environments
from megatron_trace.envs.bfcl import package
from megatron_trace.envs.bfcl.tasks import CATEGORIES, MULTI_TURN
from megatron_trace.envs.builtin.function_calling import FunctionCalling
from megatron_trace.envs.check import check_environment
from megatron_trace.envs.contract import check_contract
from megatron_trace.models.messages import Reply, ToolCall
from tests.unit.envs.bfcl.answers import play, possible, replies, some, tool_calls, truth

DONE = Reply("Done.")


def maker(max_turns: int = 60, **options: Any) -> Any:
    return make_environments(
        EnvironmentConfig("function_calling", max_turns, {"function_calling": options})
    )


def begun(task: dict[str, Any], max_turns: int = 60, **options: Any) -> FunctionCalling:
    episode = FunctionCalling(FunctionCalling.Options(**options), max_turns)
    episode.reset(task)
    return episode


def call(name: str, fault: str = "", **arguments: Any) -> Reply:
    return Reply("", calls=(ToolCall(name, arguments, "call_0", fault),))


@pytest.mark.parametrize("category", MULTI_TURN)
def test_a_fork_at_any_reply_sees_what_the_original_saw(category: str) -> None:
    for task in some(category, 67):
        check_contract(maker(), task, replies(truth(task, together=False)))
        wrong = truth(task)
        wrong[-1] = [[{"ls": {"a": True}}], [{"fly": {}}]]
        check_contract(maker(partial=True), task, replies(wrong))


@pytest.mark.parametrize("category", CATEGORIES)
def test_random_episodes_keep_the_contract(category: str) -> None:
    every = 100 if category in MULTI_TURN else 200
    found = check_environment(maker(max_turns=12), some(category, every), episodes=2)
    assert found.episodes


def test_a_reply_without_a_call_brings_the_users_next_turn() -> None:
    task = some("multi_turn_base", 1)[0]
    episode = begun(task)
    result = episode.step(call("cd", folder="document"))
    assert result.observation == [
        {"role": "tool", "content": '{"current_working_directory": "document"}', "name": "cd",
         "tool_call_id": "call_0"}
    ]  # fmt: skip
    assert episode.step(DONE).observation == task["question"][1]
    assert not episode.step(call("fly", fault="its body is no JSON object")).done
    assert episode.step(DONE).observation == task["question"][3]
    end = episode.step(DONE)
    assert (end.done, end.reward, end.parts) == (True, 0.0, {"turns_right": 0.0})


def test_a_function_is_missing_until_the_user_tells_of_it() -> None:
    task = some("multi_turn_miss_func", 1)[0]
    assert task["missed_function"] == {"3": ["sort"]}
    episode = begun(task)
    assert "sort" not in [tool["function"]["name"] for tool in episode.tools]
    for _ in range(3):
        (message,) = episode.step(DONE).observation
    functions, words = message["content"].split("\n")
    assert words == "I have updated some more functions you can choose from. What about now?"
    assert [tool["function"]["name"] for tool in json.loads(functions)] == ["sort"]
    assert "sort" in [
        tool["function"]["name"] for tool in begun(some("multi_turn_base", 1)[0]).tools
    ]


def test_a_call_that_cannot_be_read_is_no_call_and_is_told_beside_others() -> None:
    task = some("multi_turn_base", 1)[0]
    episode = begun(task)
    unreadable = ToolCall("", {}, "call_1", "its body is no JSON object")
    both = (ToolCall("ls", {}, "call_0"), unreadable)
    result = episode.step(Reply("", calls=both))
    assert result.malformed and result.observation[1]["content"] == (
        "Error: this call cannot be made: its body is no JSON object."
    )
    assert episode.snapshot()["answers"] == [[["ls()"]]]
    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]
    alone = episode.step(call("cat", file_name=deep))
    assert alone.malformed and alone.observation == task["question"][1]


def test_a_thought_without_end_ends_the_episode() -> None:
    result = begun(some("multi_turn_base", 1)[0]).step(Reply("", fault="the thought has no end"))
    assert result.done and result.malformed and result.reward == 0


def test_too_many_steps_end_the_episode_as_in_bfcl() -> None:
    task = some("multi_turn_base", 1)[0]
    episode = begun(task)
    steps = [episode.step(call("pwd")) for _ in range(21)]
    assert [result.done for result in steps] == [False] * 20 + [True]
    assert steps[-1].reward == 0
    # In the last turn BFCL judges what there is.
    said = replies(truth(task))[:-1]
    assert play(task, said + [call("pwd")] * 20).reward == 1


def test_the_last_allowed_reply_must_end_the_episode() -> None:
    task = some("multi_turn_base", 1)[0]
    said = replies(truth(task))
    episode = begun(task, max_turns=len(said) - 1, partial=True)
    results = [episode.step(reply) for reply in said[:-1]]
    assert [result.done for result in results] == [False] * (len(said) - 2) + [True]
    assert results[-1].reward == 3 / 4
    assert begun(task, max_turns=1).step(call("ls")).reward == 0


def test_partial_is_the_share_of_turns_that_are_right_from_the_first_on() -> None:
    task = some("multi_turn_base", 1)[0]
    turns = truth(task)
    turns[2] = []
    assert play(task, replies(turns), partial=True).reward == 0.5
    assert play(task, replies(turns)).reward == 0
    assert play(task, replies(turns)).parts == {"turns_right": 0.5}


def test_a_long_result_is_cut() -> None:
    episode = begun(some("multi_turn_base", 1)[0], result_chars=5)
    (message,) = episode.step(call("ls")).observation
    assert message["content"].startswith('{"cur\n[cut: 5 of ')


def test_a_single_turn_ends_with_the_first_reply() -> None:
    task = some("multiple", 1)[0]
    result = begun(task).step(Reply("", calls=tool_calls(possible(task))))
    assert (result.done, result.reward, result.parts) == (True, 1.0, {"turns_right": 1.0})
    assert begun(task).step(Reply("", fault="the thought has no end")).malformed


def test_names_with_dots_are_called_with_underscores() -> None:
    task = next(task for task in some("multiple", 1) if "." in task["function"].split(",")[0])
    names = [tool["function"]["name"] for tool in begun(task).tools]
    assert not any("." in name for name in names)


def test_later_steps_do_not_change_a_snapshot() -> None:
    episode = begun(some("multi_turn_base", 1)[0])
    episode.step(call("ls"))
    snapshot = episode.snapshot()
    text = json.dumps(snapshot)
    for reply in (call("pwd"), DONE, call("pwd")):
        episode.step(reply)
    assert json.dumps(snapshot) == text


def test_arguments_of_a_reply_are_not_changed() -> None:
    episode = begun(some("multi_turn_base", 120)[1])
    reply = call("place_order", tags=["a"])
    episode.step(reply)
    assert reply.calls[0].arguments == {"tags": ["a"]}


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"category": "sql"}, "category must be one of multi_turn_base, .*, not 'sql'"),
        ({"id": 3}, "id must be a text, not 3"),
        ({"question": []}, "question must be a list, not empty"),
        ({"question": [[]] * 4}, "question must begin with a message"),
        ({"question": [[{"role": "user", "content": "a"}]]},
            "has 1 turns of the user, and ground_truth has 4"),
        ({"involved_classes": ["WebSearchAPI"]}, "'WebSearchAPI' is not"),
        ({"initial_config": None}, "initial_config must be the text of a JSON object, not None"),
        ({"initial_config": "[]"}, r"initial_config must be the text of a JSON object, not '\[\]'"),
        ({"ground_truth": "ls()"}, "ground_truth must be a list"),
        ({"ground_truth": [["echo('sort(x)')"]] * 4}, "BFCL does not accept its own ground_truth at turn 0"),
        ({"category": "multiple"}, "function must be the text of a JSON list, not None"),
        ({"category": "multiple", "function": '[{"name": "f"}]'}, "a function's doc is none that"),
    ],
)  # fmt: skip
def test_a_task_that_cannot_be_judged_is_refused(wrong: dict[str, Any], text: str) -> None:
    task = some("multi_turn_base", 1)[0]
    with pytest.raises(ValueError, match=text):
        begun(task).check_task(task | wrong)


def test_a_turn_without_message_needs_a_function_that_is_added() -> None:
    task = some("multi_turn_miss_func", 1)[0]
    begun(task).check_task(task)
    del task["missed_function"]
    with pytest.raises(ValueError, match="no message at turn 3, where no function is added"):
        begun(some("multi_turn_base", 1)[0]).check_task(task)


def test_without_the_package_one_line_says_what_to_install(monkeypatch: Any) -> None:
    monkeypatch.setattr(package, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install --no-deps bfcl-eval==2026\.3\.23 mpmath"):
        maker()
