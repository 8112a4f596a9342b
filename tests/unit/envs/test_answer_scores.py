"""The scores are those of the published scripts, which are repeated here to compare with."""

import re
import string
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_trace.envs.answer_scores import contains_gold, exact_match, f1_score, scores_of


def published_normalisation(s: str) -> str:
    """SQuAD's evaluate-v1.1.py; HotpotQA and Search-R1 have the same."""

    def remove_articles(text: str) -> str:
        return re.sub(r"\b(a|an|the)\b", " ", text)

    def white_space_fix(text: str) -> str:
        return " ".join(text.split())

    def remove_punc(text: str) -> str:
        exclude = set(string.punctuation)
        return "".join(ch for ch in text if ch not in exclude)

    return white_space_fix(remove_articles(remove_punc(s.lower())))


def published_f1(prediction: str, ground_truth: str) -> float:
    """HotpotQA's hotpot_evaluate_v1.py."""
    normalized_prediction = published_normalisation(prediction)
    normalized_ground_truth = published_normalisation(ground_truth)
    closed = ["yes", "no", "noanswer"]
    if normalized_prediction in closed and normalized_prediction != normalized_ground_truth:
        return 0
    if normalized_ground_truth in closed and normalized_prediction != normalized_ground_truth:
        return 0
    prediction_tokens = normalized_prediction.split()
    ground_truth_tokens = normalized_ground_truth.split()
    common = Counter(prediction_tokens) & Counter(ground_truth_tokens)
    num_same = sum(common.values())
    if num_same == 0:
        return 0
    precision = 1.0 * num_same / len(prediction_tokens)
    recall = 1.0 * num_same / len(ground_truth_tokens)
    return (2 * precision * recall) / (precision + recall)


answers = st.lists(
    st.sampled_from(
        ["yes", "No.", "the", "A", "an", "U.S.", "Paris,", "paris", "city", "noanswer"]
    ),
    max_size=5,
).map(" ".join)


@given(answers, st.lists(answers, min_size=1, max_size=3))
def test_scores_are_the_best_of_the_published_ones(answer: str, golds: list[str]) -> None:
    said = published_normalisation(answer)
    assert scores_of(answer, golds) == {
        "em": float(any(said == published_normalisation(gold) for gold in golds)),
        "f1": pytest.approx(max(published_f1(answer, gold) for gold in golds)),
        "sub_em": float(any(published_normalisation(gold) in said for gold in golds)),
    }


@pytest.mark.parametrize(
    ("answer", "golds", "em", "f1", "sub_em"),
    [
        ("Denver Broncos", ["The Denver Broncos", "Denver Broncos"], 1, 1, 1),
        ("Carolina Panthers", ["Denver Broncos"], 0, 0, 0),
        # SQuAD: one word of three is wrong, so P = 2/3 and R = 1.
        ("Levi's Stadium stadium", ["Levi's Stadium"], 0, 0.8, 1),
        ("in 1998", ["1998"], 0, 2 / 3, 1),
        ("Santa Clara", ["Santa Clara, California"], 0, 0.8, 0),
        ("the the cat", ["cat cat"], 0, 2 / 3, 0),
        # HotpotQA: yes and no are whole answers.
        ("yes", ["yes"], 1, 1, 1),
        ("yes, it is", ["yes"], 0, 0, 1),
        ("no", ["no way"], 0, 0, 0),
        # Search-R1's containment does not know words.
        ("I do not know", ["no"], 0, 0, 1),
    ],
)
def test_answers_by_hand(
    answer: str, golds: list[str], em: float, f1: float, sub_em: float
) -> None:
    assert exact_match(answer, golds) == bool(em)
    assert f1_score(answer, golds) == pytest.approx(f1)
    assert contains_gold(answer, golds) == bool(sub_em)
