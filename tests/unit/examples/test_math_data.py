"""The maps of examples/data/math.py, on rows as the data sets are published."""

from pathlib import Path

import pytest

from megatron_trace.config.functions import find_function
from megatron_trace.envs.builtin.math_python import MathPython

FILE = Path(__file__).parents[3] / "examples/data/math.py"

DAPO = {
    "data_source": "math_dapo",
    "prompt": [
        {
            "content": "Solve the following math problem step by step. The last line of your "
            "response should be of the form Answer: $Answer (without quotes) where $Answer is the "
            "answer to the problem.\n\nFind $f(2014)$.\n\nGive $f$ too.\n\n"
            'Remember to put your answer on its own line after "Answer:".',
            "role": "user",
        }
    ],
    "ability": "MATH",
    "reward_model": {"ground_truth": "34", "style": "rule-lighteval/MATH_v2"},
    "extra_info": {"index": "9a9b6eb4-a1cb-49d1-8c1e-62eaf2f74079"},
}
MATH_500 = {
    "problem": "Convert the point $(0,3)$ to polar coordinates.",
    "solution": r"We have that $r = 3$. \boxed{\left( 3, \frac{\pi}{2} \right)}",
    "answer": r"\left( 3, \frac{\pi}{2} \right)",
    "subject": "Precalculus",
    "level": 2,
    "unique_id": "test/precalculus/807.json",
}
ROWS = [
    (
        "deepscaler",
        {"problem": "What is $1+1$?", "answer": "2", "solution": r"It is $\boxed{2}$."},
        {"question": "What is $1+1$?", "answer": "2"},
    ),
    ("dapo", DAPO, {"question": "Find $f(2014)$.\n\nGive $f$ too.", "answer": "34"}),
    (
        "math_500",
        MATH_500,
        {
            "id": "test/precalculus/807.json",
            "question": MATH_500["problem"],
            "answer": MATH_500["answer"],
            "subject": "Precalculus",
            "level": "2",
        },
    ),
    (
        "math_500",
        {"problem": "What?", "answer": "1"},
        {"question": "What?", "answer": "1"},
    ),
    (
        "aime",
        {"id": 60, "problem": "Every morning …", "solution": "…", "answer": "025", "year": "2024"},
        {"question": "Every morning …", "answer": "25"},
    ),
    (
        "aime",
        {"ID": "2024-II-4", "Problem": "Let …", "Solution": "…", "Answer": 33},
        {"question": "Let …", "answer": "33"},
    ),
    (
        "aime",
        {"question": "Find the sum.", "answer": "70"},
        {"question": "Find the sum.", "answer": "70"},
    ),
    ("deepscaler", {"problem": "What?", "answer": "", "solution": ""}, None),
]


@pytest.mark.parametrize(("function", "row", "task"), ROWS)
def test_a_published_row_becomes_a_task(function, row, task) -> None:
    made = find_function("data.map", f"{FILE}:{function}", 1)(row)
    assert made == task
    if made:
        MathPython(MathPython.Options(), 4).check_task(made)
