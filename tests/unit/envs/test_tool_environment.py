"""Tools as methods: whatever a call does, the policy is told, and the episode continues."""

import json
import time
from typing import Any

import pytest

from megatron_trace.config import EnvironmentConfig, SettingError
from megatron_trace.envs import ENVIRONMENTS, Reply, StepResult, ToolCall, ToolEnvironment, tool
from megatron_trace.envs.contract import check_contract
from megatron_trace.envs.results import checked_result
from megatron_trace.envs.schemas import schema_of


class Desk(ToolEnvironment):
    """A desk with odd tools."""

    def start(self, task: Any) -> str:
        self.state["notes"] = []
        return task["question"]

    def score(self, answer: str) -> Any:
        return {"right": 0.8 * (answer == "yes"), "brief": 0.2}

    @tool
    def note(self, text: str, times: int = 1) -> list[str]:
        """Write a note.

        Args:
            text: what to write.
            times: how often.
        """
        self.state["notes"] += [text] * times
        return self.state["notes"]

    @tool
    def odd(self, kind: str) -> Any:
        """Do something odd.

        Args:
            kind: what to do.
        """
        if kind == "raise":
            raise KeyError("gone")
        if kind == "exit":
            raise SystemExit(3)
        self.state["notes"].append(kind)
        if kind == "hang":
            time.sleep(1)
            self.state["notes"].append("late")
        return {"none": None, "bytes": b"\x00\x01", "huge": "x" * 9_000, "half": "\ud800"}.get(kind)


TASK = {"id": "0", "question": "Is it?"}


def desk(max_turns: int = 9, **options: Any) -> Desk:
    episode = Desk(Desk.Options(**options), max_turns)
    episode.reset(TASK)
    return episode


def call(name: str = "note", number: int = 0, fault: str = "", **arguments: Any) -> ToolCall:
    return ToolCall(name, arguments, f"call_{number}", fault)


def told(episode: Desk, *calls: ToolCall) -> list[str]:
    return [message["content"] for message in episode.step(Reply("", calls=calls)).observation]


def test_the_schemas_come_from_hints_and_docstrings() -> None:
    note = next(one["function"] for one in desk().tools if one["function"]["name"] == "note")
    assert note["description"] == "Write a note."
    assert note["parameters"]["required"] == ["text"]
    assert note["parameters"]["properties"]["times"] == {
        "type": "integer",
        "description": "how often.",
    }


def episode_notes(kind: str) -> list[str]:
    """What `odd` notes before it ends."""
    return [] if kind in ("raise", "exit") else [kind]


def test_every_call_is_answered_in_its_order() -> None:
    episode = desk()
    result = episode.step(Reply("", calls=(call(text="a"), call(number=1, text="b", times=2))))
    assert result.observation == [
        {"role": "tool", "content": '["a"]', "name": "note", "tool_call_id": "call_0"},
        {"role": "tool", "content": '["a", "b", "b"]', "name": "note", "tool_call_id": "call_1"},
    ]
    assert not result.done and not result.malformed


def test_a_turn_without_a_call_is_the_answer_and_its_parts_are_the_reward() -> None:
    result = checked_result(desk().step(Reply("yes")), chat=True)
    assert (result.done, result.reward) == (True, 1.0)
    assert result.parts == {"right": 0.8, "brief": 0.2}
    assert desk().step(Reply("no")).reward == 0.2


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("raise", "Error: KeyError: 'gone'."),
        ("exit", "Error: SystemExit: 3."),
        ("none", "The call returned nothing."),
        ("bytes", "Error: the result is 2 bytes of binary data, which is no text."),
        ("huge", f"{'x' * 4_000}\n[cut: 4,000 of 9,000 characters]"),
        ("half", "?"),
    ],
)
def test_whatever_a_tool_does_is_told(kind: str, content: str) -> None:
    episode = desk()
    assert told(episode, call("odd", kind=kind)) == [content]
    assert episode.malformed_calls == 0
    assert told(episode, call(text="on")) == [json.dumps([*episode_notes(kind), "on"])]


@pytest.mark.parametrize(
    ("kinds", "errors"), [(["raise", "none", "exit"], 2), (["hang"], 1), (["half", "huge"], 0)]
)
def test_calls_that_raised_or_took_too_long_are_counted_in_their_turn(
    kinds: list[str], errors: int
) -> None:
    episode = desk(tool_timeout_s=0.1)
    calls = tuple(call("odd", number, kind=kind) for number, kind in enumerate(kinds))
    assert checked_result(episode.step(Reply("", calls=calls)), chat=True).tool_errors == errors
    assert episode.step(Reply("", calls=(call(text="on"),))).tool_errors == 0


def test_a_tool_that_takes_too_long_is_left_behind() -> None:
    episode = desk(tool_timeout_s=0.1)
    limit = "Error: no result within 0.1 seconds."
    assert told(episode, call("odd", kind="hang")) == [limit]
    time.sleep(1.2)
    assert episode.state["notes"] == []


class Patient(Desk):
    """What it calls retryable is no fault of the policy."""

    retryable = (KeyError, TimeoutError)


@pytest.mark.parametrize(
    ("kind", "raised"), [("raise", "gone"), ("hang", r"no result within 0\.1 seconds")]
)
def test_what_is_retryable_is_not_told_but_raised(kind: str, raised: str) -> None:
    episode = Patient(Patient.Options(tool_timeout_s=0.1), 9)
    episode.reset(TASK)
    with pytest.raises(Patient.retryable, match=raised):
        episode.step(Reply("", calls=(call("odd", kind=kind),)))
    assert told(episode, call("odd", kind="exit")) == ["Error: SystemExit: 3."]


def test_a_score_may_have_parts_that_are_not_its_reward() -> None:
    class Judged(Desk):
        def score(self, answer: str) -> StepResult:
            return StepResult("", done=True, reward=0.5, malformed=False, parts={"length": 40.0})

    episode = Judged(Judged.Options(malformed_penalty=0.25), 9)
    episode.reset(TASK)
    episode.step(Reply("", calls=(call("buy"),)))
    end = checked_result(episode.step(Reply("yes")), chat=True)
    assert end.reward == 0.25 and end.parts == {"length": 40.0, "malformed_penalty": -0.25}


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (call("buy"), 'there is no tool "buy"; there are note, odd'),
        (call(), "'text' is a required property"),
        (call(text=3), "text: 3 is not of type 'string'"),
        (call(text="a", size=2), "it has no argument size; there are text, times"),
        (call("", fault="its body is no JSON object"), "its body is no JSON object"),
    ],
)
def test_a_malformed_call_is_told_counted_and_costs_its_penalty(wrong: ToolCall, text: str) -> None:
    episode = desk(malformed_penalty=0.3)
    result = episode.step(Reply("", calls=(wrong, call(number=1, text="a"))))
    assert result.malformed and not result.done
    assert result.observation[0]["content"] == f"Error: this call cannot be made: {text}."
    assert result.observation[1]["content"] == '["a"]'
    end = episode.step(Reply("yes"))
    assert end.reward == pytest.approx(0.7) and end.parts["malformed_penalty"] == -0.3


def test_the_last_turn_must_answer_and_a_turn_without_an_end_fails() -> None:
    assert desk(max_turns=1).step(Reply("", calls=(call(text="a"),))).done
    unfinished = desk().step(Reply("", fault="the thought has no end"))
    assert unfinished.done and unfinished.malformed and unfinished.reward == 0


def test_it_keeps_the_contract() -> None:
    calls = [Reply("", calls=(call(text=text),)) for text in "ab"]
    check_contract(lambda: Desk(Desk.Options(), 9), TASK, [*calls, Reply("yes")])


def test_a_tool_without_a_schema_is_refused() -> None:
    def silent(self: Any, size: int) -> int:
        return size

    def untyped(self: Any, size) -> int:  # type: ignore[no-untyped-def]
        """Grow."""
        return size

    with pytest.raises(ValueError, match=r"the tool .*silent has no schema: .*no docstring"):
        schema_of(silent)
    with pytest.raises(ValueError, match="missing a type hint"):
        schema_of(untyped)


def test_a_file_without_score_is_refused(tmp_path: Any) -> None:
    file = tmp_path / "half.py"
    file.write_text(
        "from megatron_trace.envs import ToolEnvironment\n\n\n"
        "class Half(ToolEnvironment):\n    def start(self, task):\n        return 'go'\n"
    )
    with pytest.raises(SettingError, match="its class must define score"):
        ENVIRONMENTS.options(EnvironmentConfig(str(file)).name, {})
