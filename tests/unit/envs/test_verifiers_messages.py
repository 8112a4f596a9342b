"""Messages between the policy and environments of verifiers; the package itself is not needed."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_trace.envs.verifiers_messages import check_continues, plain, spoken, with_names
from megatron_trace.models.messages import Reply, ToolCall

MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "tool"]), "content": st.sampled_from("ab")}
    ),
    min_size=1,
    max_size=5,
)


@given(MESSAGES, MESSAGES)
def test_a_request_may_only_add(said: Any, new: Any) -> None:
    check_continues(said, said + new)
    with pytest.raises(ValueError, match="without a new message"):
        check_continues(said, said)
    with pytest.raises(ValueError, match=f"message {len(said)} was .*, and is None"):
        check_continues(said, said[:-1])


@given(MESSAGES, MESSAGES, st.data())
def test_a_changed_message_is_named(said: Any, new: Any, data: Any) -> None:
    at = data.draw(st.integers(0, len(said) - 1))
    changed = [*said[:at], {"role": "system", "content": "x"}, *said[at + 1 :], *new]
    with pytest.raises(ValueError, match=f"rewrites earlier messages: message {at + 1} was"):
        check_continues(said, changed)


def test_what_is_empty_is_left_out() -> None:
    message = {"role": "assistant", "content": None, "tool_calls": [], "extra": 1}
    assert plain(message) == {"role": "assistant", "content": ""}


def test_parts_of_text_are_one_text() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert plain({"role": "user", "content": parts})["content"] == "ab"


def test_only_the_roles_of_a_chat_are_taken() -> None:
    with pytest.raises(ValueError, match="no chat: a message has the role 'text'"):
        plain({"role": "text", "content": "Once"})


def test_a_reply_is_a_message() -> None:
    call, broken = ToolCall("add", {"a": 1}, "call_0"), ToolCall("", {}, "call_1", "no JSON")
    reply = Reply("so", "hm", (call, broken))
    message = spoken(reply, thoughts_in_text=False)
    assert (message["content"], message["reasoning_content"]) == ("so", "hm")
    assert json.loads(message["tool_calls"][0]["arguments"]) == {"a": 1}
    assert message["tool_calls"][1]["arguments"] == ""
    assert plain(message) == message
    inside = spoken(reply, thoughts_in_text=True)
    assert inside["content"] == "<think>\nhm\n</think>\n\nso"
    assert "reasoning_content" not in inside


def test_answers_of_tools_have_their_names() -> None:
    reply = Reply("", calls=(ToolCall("add", {}, "call_0"),))
    answer = {"role": "tool", "content": "5", "tool_call_id": "call_0"}
    other = {"role": "user", "content": "on"}
    assert with_names([answer, other], reply) == [{**answer, "name": "add"}, other]
