"""Scores of a short answer: exact match, F1 and containment, as the published scripts compute them.

- `normalize_answer`, `exact_match`: SQuAD's `evaluate-v1.1.py` (arXiv 1606.05250).
- `f1_score`: HotpotQA's `hotpot_evaluate_v1.py` (arXiv 1809.09600), which 2WikiMultiHopQA uses too.
- `contains_gold`: `subem_check` of Search-R1 (arXiv 2503.09516).

Where there are several gold answers, the best score counts.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

CLOSED = ("yes", "no", "noanswer")
"""Answers that HotpotQA's F1 takes whole or not at all."""


def normalize_answer(text: str) -> str:
    """SQuAD normalisation: lower case, no punctuation, no articles, single spaces."""
    text = "".join(char for char in text.lower() if char not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def exact_match(answer: str, golds: Sequence[str]) -> bool:
    """Whether `answer` equals one of `golds` after normalisation."""
    return normalize_answer(answer) in {normalize_answer(gold) for gold in golds}


def contains_gold(answer: str, golds: Sequence[str]) -> bool:
    """Whether `answer` holds one of `golds` after normalisation; within a word, too."""
    said = normalize_answer(answer)
    return any(normalize_answer(gold) in said for gold in golds)


def f1_score(answer: str, golds: Sequence[str]) -> float:
    """The harmonic mean of precision and recall of the answer's words, in [0, 1]."""
    return max(_f1(normalize_answer(answer), normalize_answer(gold)) for gold in golds)


def _f1(said: str, gold: str) -> float:
    if said != gold and (said in CLOSED or gold in CLOSED):
        return 0.0
    words, gold_words = said.split(), gold.split()
    same = sum((Counter(words) & Counter(gold_words)).values())
    # The formula 2PR / (P + R), with P = same / said and R = same / gold.
    return 2 * same / (len(words) + len(gold_words)) if same else 0.0


SCORES: Mapping[str, Callable[[str, Sequence[str]], float]] = {
    "em": lambda answer, golds: float(exact_match(answer, golds)),
    "f1": f1_score,
    "sub_em": lambda answer, golds: float(contains_gold(answer, golds)),
}
"""Name of a score -> answer, gold answers -> score in [0, 1]."""


def scores_of(answer: str, golds: Sequence[str]) -> dict[str, float]:
    """All scores of an answer, by name."""
    return {name: score(answer, golds) for name, score in SCORES.items()}
