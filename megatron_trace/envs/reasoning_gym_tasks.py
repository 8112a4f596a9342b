"""Tasks of reasoning-gym (arXiv 2505.24760): which families can be used, and how they score.

A task's `reasoning_gym` is `{"family": NAME, "answer": …, "metadata": {…}, "question": …}`: the
family's name and its own entry.
"""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

INSTALL = "pip install --no-deps -r requirements-reasoning-gym.txt"

EVALUATES = frozenset(
    {
        "binary_matrix", "codeio", "composite", "countdown", "intermediate_integration",
        "n_queens", "polynomial_multiplication", "puzzle24", "simple_integration",
        "spiral_matrix", "string_insertion",
    }
)  # fmt: skip
"""Families that score an answer by evaluating it as Python, or may do so by way of others. A
policy's answer would run as code of the worker."""


def check(entry: Any) -> None:
    """Refuse an entry that no family can score, or that must not be scored here.

    Raises:
        ValueError: what is wrong.
    """
    if not isinstance(entry, Mapping) or not isinstance(entry.get("family"), str):
        raise ValueError(f"reasoning_gym must be an entry with a family, not {entry!r}")
    if missing := {"question", "answer", "metadata"} - set(entry):
        raise ValueError(f"reasoning_gym has no {min(missing)}")
    check_family(entry["family"])


def check_family(family: str) -> None:
    """Refuse a family that does not exist, or that evaluates answers.

    Raises:
        ValueError: what is wrong.
    """
    if find_spec("reasoning_gym") is None:
        raise ValueError(f"reasoning_gym is not installed: {INSTALL}")
    from reasoning_gym.factory import DATASETS

    if family in EVALUATES:
        raise ValueError(f"the family {family} evaluates answers as Python, which is not safe")
    if family not in DATASETS:
        raise ValueError(f"reasoning-gym has no family {family}")


def score(answer: str, entry: Mapping[str, Any]) -> float:
    """What the family gives for an answer, in [0, 1]; 0 where the answer makes it fail."""
    import reasoning_gym

    # Its scoring reads texts of any form, and some families raise on those that they do not expect.
    score_answer = reasoning_gym.get_score_answer_fn(entry["family"])
    try:
        return min(max(float(score_answer(answer, entry)), 0.0), 1.0)
    except Exception:
        return 0.0
