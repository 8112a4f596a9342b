r"""Tasks of `math_python` from published data sets: `data.map=examples/data/math.py:FUNCTION`.

| function | data set, as it is published |
| --- | --- |
| `deepscaler` | agentica-org/DeepScaleR-Preview-Dataset |
| `dapo` | BytedTsinghua-SIA/DAPO-Math-17k (each question is there about 100 times) |
| `math_500` | HuggingFaceH4/MATH-500 |
| `aime` | HuggingFaceH4/aime_2024, math-ai/aime25, Maxwell-Jia/AIME_2024, opencompass/AIME2025 |

A row without an answer of its own is left out.
"""

import re
from collections.abc import Mapping
from typing import Any

DAPO_PREFIX = re.compile(
    r"\ASolve the following math problem step by step\. The last line of your response should be of "
    r"the form Answer: \$Answer \(without quotes\) where \$Answer is the answer to the problem\.\s*"
)
DAPO_SUFFIX = re.compile(r'\s*Remember to put your answer on its own line after "Answer:"\.\s*\Z')


def deepscaler(row: Mapping[str, Any]) -> dict[str, str] | None:
    """`problem` and `answer`; `solution` is not used."""
    return task(row["problem"], row["answer"])


def dapo(row: Mapping[str, Any]) -> dict[str, str] | None:
    """The question within the prompt's own instructions, and `reward_model.ground_truth`."""
    question = row["prompt"][0]["content"]
    question = DAPO_SUFFIX.sub("", DAPO_PREFIX.sub("", question))
    return task(question, row["reward_model"]["ground_truth"])


def math_500(row: Mapping[str, Any]) -> dict[str, str] | None:
    """`problem` and `answer`, with name, subject and level where the copy has them."""
    made = task(row["problem"], row["answer"])
    names = {"unique_id": "id", "subject": "subject", "level": "level"}
    more = {name: str(row[column]) for column, name in names.items() if column in row}
    return made and made | more


def aime(row: Mapping[str, Any]) -> dict[str, str] | None:
    """A problem and its answer, a whole number from 0 to 999, under the names of any of the files."""
    named = {name.lower(): value for name, value in row.items()}
    answer = str(named["answer"]).strip()
    # 025 and 25 are the same.
    number = str(int(answer)) if answer.isdecimal() else answer
    return task(named["problem"] if "problem" in named else named["question"], number)


def task(question: str, answer: Any) -> dict[str, str] | None:
    """A task of `math_python`; None where question or answer is empty."""
    question, answer = question.strip(), "" if answer is None else str(answer).strip()
    return {"question": question, "answer": answer} if question and answer else None
