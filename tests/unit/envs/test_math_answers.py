"""Where a reply's answer is, and that it is judged as math-verify judges."""

import pytest

from megatron_trace.envs.math_answers import bare, equals, final_answer


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (r"So \boxed{42}.", "42"),
        (r"First \boxed{1}, then \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{ x : x > 1 \right.}", r"\left\{ x : x > 1 \right."),
        (r"\fbox {7}", "7"),
        ("The answer is 12.", "12"),
        ("The final answer is: $\\frac{3}{4}$.", r"\frac{3}{4}"),
        ("Answer: 5\n", "5"),
        ("**Answer:** 5", "5"),
        ("The answer is 3.5.", "3.5"),
        ("the answer is 3. No: the answer is 4.", "4"),
        ("The answer is 3.\nNo, the answer is 4.", "4"),
        (r"The answer is 3, as \boxed{4} says", "4"),
        ("The answer is $x = 2$ or $x = 3$.", "$x = 2$ or $x = 3$"),
    ],
)
def test_the_last_box_or_else_the_last_phrase_is_the_answer(reply: str, answer: str) -> None:
    assert final_answer(reply) == answer


@pytest.mark.parametrize(
    "reply", ["", "42", r"\boxed{42", r"\boxed{}", "The answer is", "Nobody answered: 5"]
)
def test_a_reply_without_an_answer_has_none(reply: str) -> None:
    assert final_answer(reply) is None


@pytest.mark.parametrize(
    ("answer", "plain"),
    [
        ("$5$", "5"),
        ("$$5$$", "5"),
        (r"\(x\)", "x"),
        (r"\boxed{3}", "3"),
        ("**7**", "7"),
        ("$", "$"),
    ],
)
def test_an_answer_is_freed_of_its_marks(answer: str, plain: str) -> None:
    assert bare(answer) == plain


PAIRS = [
    ("1/2", "0.5", True),
    (r"\frac{1}{2}", "0.5", True),
    (r"\dfrac12", r"\frac{1}{2}", True),
    ("1,000", "1000", True),
    (r"50\%", "0.5", True),
    (r"2\sqrt{3}", r"\sqrt{12}", True),
    ("x+1", "1+x", True),
    ("(x-1)(x+1)", "x^2-1", True),
    ("x=5", "5", True),
    (r"\{1,2\}", r"\{2,1\}", True),
    ("(1,2)", "(1,2)", True),
    ("(1,2)", "(2,1)", False),
    # What is right decides what is meant.
    ("(1,2)", "1 < x < 2", True),
    ("1 < x < 2", "(1,2)", False),
    (r"\text{Evelyn}", "Evelyn", True),
    (r"90^\circ", "90", True),
    (r"\frac{\pi}{2}", r"\pi/2", True),
    ("3", "4", False),
    ("0.333", r"\frac13", False),
    ("p - q", "q - p", False),
    ("", "4", False),
    (r"\frac{1}{", "4", False),
]


@pytest.mark.parametrize(("answer", "right", "same"), PAIRS)
def test_the_verdict_is_that_of_math_verify(answer: str, right: str, same: bool) -> None:
    from math_verify import parse, verify

    # As its own documentation calls it, with its own limits of time.
    own = verify(parse(rf"$\boxed{{{right}}}$"), parse(rf"$\boxed{{{answer}}}$"))
    assert equals(answer, right) == own == same


def test_no_answer_is_evaluated_as_python(tmp_path) -> None:
    made = tmp_path / "made"
    for code in (f"__import__('os').mkdir('{made}')", f"open('{made}', 'w')"):
        assert not equals(code, "1")
    assert not made.exists()
