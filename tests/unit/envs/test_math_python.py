"""Questions with Python as a tool: code runs in the sandbox, answers are judged."""

from typing import Any

import pytest

from megatron_trace.config import EnvironmentConfig, SettingError
from megatron_trace.envs import Reply, ToolCall, make_environments
from megatron_trace.envs.builtin import math_python
from megatron_trace.envs.builtin.math_python import MathPython, told
from megatron_trace.envs.contract import check_contract
from megatron_trace.envs.sandbox import Outcome, SandboxError

TASK = {"id": "0", "question": "What is 2^10 / 3 ?", "answer": r"\frac{1024}{3}"}


@pytest.fixture(scope="module")
def make():
    settings = {"math_python": {"judges": 1, "judge_cpu_s": 2, "python_at_once": 2}}
    make = make_environments(EnvironmentConfig("math_python", 4, settings))
    yield make
    episode = make()
    episode.shared.sandbox.close()
    episode.shared.judge.close()


def run(code: str) -> Reply:
    return Reply("", calls=(ToolCall("python", {"code": code}, "call_0"),))


def ended(make: Any, reply: str, task: dict[str, Any] = TASK) -> float:
    episode = make()
    episode.reset(task)
    result = episode.step(Reply(reply))
    assert result.done
    return result.reward


def test_the_prompt_is_the_question_and_asks_for_a_box(make) -> None:
    (message,) = make().reset(TASK)
    assert message["content"].startswith(TASK["question"])
    assert r"\boxed{}" in message["content"]


def test_code_runs_and_is_shown(make) -> None:
    episode = make()
    episode.reset(TASK)
    (answer,) = episode.step(run("import sympy\nprint(sympy.Rational(2**10, 3))")).observation
    assert answer["content"] == "1024/3"
    (answer,) = episode.step(run("1/0")).observation
    assert answer["content"].endswith("ZeroDivisionError: division by zero")


@pytest.mark.parametrize(
    ("outcome", "text"),
    [
        (Outcome("7\n", "a warning", "ok"), "7"),
        (Outcome("", "", "ok"), "The code printed nothing."),
        (Outcome("7\n", "Trace\nValueError: x\n", "error"), "7\nTrace\nValueError: x"),
        (Outcome("", "", "error"), "The code ended with an error."),
        (Outcome("7", "", "timeout"), "7\nThe code took too long and was ended."),
    ],
)
def test_an_outcome_is_told(outcome: Outcome, text: str) -> None:
    assert told(outcome) == text


@pytest.mark.parametrize(
    ("reply", "reward"),
    [
        (r"So \boxed{1024/3}", 1.0),
        (r"The answer is $341\frac{1}{3}$.", 1.0),
        (r"\boxed{341}", 0.0),
        ("1024/3", 0.0),
        (r"\boxed{9^{9^{9^9}}}", 0.0),
        (rf"\boxed{{{'1' * 501}}}", 0.0),
    ],
)
def test_the_reward_is_whether_the_answer_is_right(make, reply: str, reward: float) -> None:
    assert ended(make, reply) == reward


def test_it_keeps_the_contract(make) -> None:
    check_contract(make, TASK, [run("print(2**10)"), run("1/0"), Reply(r"\boxed{1024/3}")])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question": ""}, "question must be a text, not ''"),
        ({"answer": 42}, r"answer must be a text \(LaTeX\), not 42"),
        ({"answer": "$$"}, "answer must be a text"),
        ({"answer": "1" * 501}, "answer has 501 characters; at most 500 can be"),
        ({"reasoning_gym": {}}, "must be an entry with a family"),
        ({"reasoning_gym": {"family": "gcd"}}, "reasoning_gym has no answer"),
    ],
)
def test_a_task_that_cannot_be_judged_is_refused(make, change: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make().check_task(TASK | change)


def test_a_sandbox_that_does_not_work_is_no_observation(make) -> None:
    class Dead:
        def run(self, code: str) -> Outcome:
            raise SandboxError("the sandbox is closed")

    shared = math_python.Shared(Dead(), make().shared.judge)
    episode = MathPython(MathPython.Options(), 4, shared)
    episode.reset(TASK)
    with pytest.raises(SandboxError, match="the sandbox is closed"):
        episode.step(run("print(1)"))


def test_code_that_names_the_error_is_an_observation(make) -> None:
    episode = make()
    episode.reset(TASK)
    (answer,) = episode.step(run("print('SandboxError: x')")).observation
    assert answer["content"] == "SandboxError: x"


def test_a_missing_package_is_one_line(monkeypatch) -> None:
    monkeypatch.setitem(math_python.NEEDED, "math_verify_gone", "math-verify")
    with pytest.raises(SettingError, match="needs math_verify_gone: pip install math-verify"):
        MathPython.load(MathPython.Options())
