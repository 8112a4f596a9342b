"""Published multi-hop questions as tasks of `search_qa` and `search_chat`.

    data.map=examples/data/multihop_qa.py:hotpotqa

| function | files |
| --- | --- |
| `hotpotqa` | HotpotQA, of its authors or as Parquet (`distractor`, `fullwiki`) |
| `two_wiki` | 2WikiMultiHopQA, of its authors or as Parquet |
| `musique` | MuSiQue (`musique_ans`, `musique_full`) |
| `bamboogle` | Bamboogle as Parquet or JSON lines |
| `search_r1` | Search-R1's Parquet, and FlashRAG's JSON lines, which it is made of |

Questions without an answer are left out, as test sets have them. A command writes the paragraphs
that come with the questions as a corpus:

    python examples/data/multihop_qa.py 'raw/hotpotqa/*.parquet' data/hotpotqa/corpus.jsonl
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from megatron_trace.envs.answer_scores import normalize_answer
from megatron_trace.files.atomic import whole_file
from megatron_trace.files.rows import read_rows

Row = Mapping[str, Any]
Task = dict[str, Any]


def hotpotqa(row: Row) -> Task | None:
    """`{"_id" or "id", "question", "answer", ...}`; without the answer in the test set."""
    return _task(row.get("_id", row["id"]), row["question"], _list(row.get("answer")))


def two_wiki(row: Row) -> Task | None:
    """As HotpotQA's; some copies have `answer_aliases` too, or a list of answers."""
    golds = [*_list(row.get("answer")), *_list(row.get("answer_aliases"))]
    return _task(row.get("_id", row["id"]), row["question"], golds)


def musique(row: Row) -> Task | None:
    """`{"id", "question", "answer", "answer_aliases", "answerable", "paragraphs", ...}`."""
    if not row.get("answerable", True):
        return None
    golds = [*_list(row.get("answer")), *_list(row.get("answer_aliases"))]
    return _task(row["id"], row["question"], golds)


def bamboogle(row: Row) -> Task | None:
    """`{"Question", "Answer"}`, as in its table."""
    return _task(row["id"], row["Question"], _list(row["Answer"]))


def search_r1(row: Row) -> Task | None:
    """`{"id", "question", "golden_answers", "data_source", "prompt", "reward_model", ...}`.

    The answers may be in `reward_model` alone: `{"ground_truth": {"target": [...]}}`. The ids of its
    sources overlap, so a task's id begins with its `data_source`.
    """
    golds = row.get("golden_answers")
    if golds is None:
        truth = _parsed(_parsed(row["reward_model"])["ground_truth"])
        golds = truth["target"] if isinstance(truth, dict) else truth
    source = row.get("data_source")
    return _task(
        f"{source}-{row['id']}" if source else row["id"],
        row.get("question") or _asked(row["prompt"]),
        _list(golds),
    )


def _task(name: Any, question: str, golds: Sequence[Any]) -> Task | None:
    """The task; None where no answer is left that can be matched.

    SQuAD's normalisation leaves nothing of an answer such as "the" or "?", which would match
    everything.
    """
    answers = [str(gold) for gold in golds if gold is not None and normalize_answer(str(gold))]
    if not answers:
        return None
    return {"id": str(name), "question": question.strip(), "answers": list(dict.fromkeys(answers))}


def _asked(prompt: Any) -> str:
    """The question in the prompt of a chat: what follows the last `Question:`."""
    (*_, last) = (one["content"] for one in _parsed(prompt) if one["role"] == "user")
    return last.rpartition("Question:")[2]


def _list(value: Any) -> list[Any]:
    """A list as it is, or written as JSON; a single value as a list of one; none as an empty one."""
    value = _parsed(value)
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _parsed(value: Any) -> Any:
    """Some copies hold nested columns as texts of JSON."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def paragraphs(row: Row) -> Iterator[tuple[str, str]]:
    """Title and text of the paragraphs that come with a question.

    HotpotQA and 2WikiMultiHopQA have `context`: pairs of a title and its sentences, or in Parquet
    `{"title": [...], "sentences": [...]}` (`content` in some copies). MuSiQue has `paragraphs`.
    """
    for one in row.get("paragraphs") or ():
        yield one["title"], one["paragraph_text"]
    context = _parsed(row.get("context") or [])
    if isinstance(context, dict):
        texts = context["sentences"] if "sentences" in context else context["content"]
        context = list(zip(context["title"], texts, strict=True))
    for title, sentences in context:
        yield title, " ".join(sentence.strip() for sentence in sentences)


def write_corpus(pattern: str, out: Path) -> int:
    """Write all paragraphs of the files `pattern`, each once; returns how many there are."""
    problems: list[str] = []
    seen = set()
    with whole_file(out) as partial, open(partial, "w", encoding="utf-8") as file:
        for row in read_rows(pattern, problems):
            for title, text in paragraphs(row.content):
                if text.strip() and title.strip() and (title, text) not in seen:
                    seen.add((title, text))
                    document = {"id": str(len(seen) - 1), "title": title, "text": text}
                    file.write(json.dumps(document, ensure_ascii=False) + "\n")
        if problems or not seen:
            raise SystemExit(f"error: {problems[0] if problems else f'no paragraph in {pattern}'}")
    return len(seen)


if __name__ == "__main__":
    print(f"{write_corpus(sys.argv[1], Path(sys.argv[2]))} passages in {sys.argv[2]}")
