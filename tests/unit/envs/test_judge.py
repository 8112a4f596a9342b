"""A judgement ends by its limits, whatever it is asked, and the next one is not the worse for it."""

import os
import threading

import pytest

from megatron_trace.envs.judge import Judge
from megatron_trace.envs.math_answers import equals


@pytest.fixture(scope="module")
def judge():
    judge = Judge(processes=1, cpu_s=2, memory_mib=1024)
    yield judge
    judge.close()


@pytest.mark.parametrize(
    "answer",
    [
        "9^{9^{9^9}}",
        *(pytest.param(more, marks=pytest.mark.slow) for more in ("10^{10^{8}}!", "(" * 200)),
        "9**9**9",
    ],
)
def test_a_hostile_answer_is_no_right_one_and_the_next_is_judged(judge, answer: str) -> None:
    assert not judge.call(equals, answer, "3")
    assert judge.call(equals, "1/2", "0.5") is True


def test_it_works_in_threads(judge) -> None:
    verdicts = []
    threads = [
        threading.Thread(target=lambda n=n: verdicts.append((n, judge.call(equals, str(n), "3"))))
        for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(verdicts) == [(n, n == 3) for n in range(6)]


def test_too_much_memory_is_no_verdict(judge) -> None:
    assert judge.call(bytes, 4 * 2**30) is None


def test_what_a_function_raises_is_raised(judge) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        judge.call(int, "x")
    assert judge.call(os.getpid) != os.getpid()
