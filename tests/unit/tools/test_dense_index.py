"""An index of vectors, from the corpus to the server's answers, with a tiny model of random weights."""

import json
import os
import shutil
import sys
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from megatron_trace.envs.retrieval.passages import Passage, passages_of_answer
from megatron_trace.files.problems import BadData

pytest.importorskip("sentence_transformers")

WORDS = ("capital", "city", "country", "france", "lyon", "of", "paris", "river", "the")
PASSAGES = [
    Passage(title, f"{first} of the {second}")
    for title, first, second in product(("paris", "lyon"), WORDS[:3], WORDS[3:])
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of one layer that knows `WORDS`, as a folder of sentence-transformers."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder: Path = tmp_path_factory.mktemp("model")
    names = {word: number for number, word in enumerate(("[PAD]", "[UNK]", *WORDS))}
    words = Tokenizer(models.WordLevel(names, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", model_max_length=32
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(names), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=32, initializer_range=0.5,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder / "bert")
    tokenizer.save_pretrained(folder / "bert")
    parts = [Transformer(str(folder / "bert"), max_seq_length=32), Pooling(16, "mean")]
    SentenceTransformer(modules=parts, device="cpu").save(str(folder / "whole"))
    return folder / "whole"


@pytest.fixture(scope="module")
def tool(load_tool: Any) -> ModuleType:
    load_tool("dense_index")
    return load_tool("serve_retriever")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    rows = [{"title": title, "text": text} for title, text in PASSAGES]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def build(tool: ModuleType, corpus: Path, folder: Path, model: Path, *prefixes: str) -> Path:
    query, passage = prefixes or ("", "")
    given = ["--corpus", str(corpus), "--index", str(folder), "--dense", str(model), "--build-only"]
    given += ["--query-prefix", query, "--passage-prefix", passage]
    assert tool.main(given) == 0
    return folder


@pytest.fixture(scope="module")
def index(
    tool: ModuleType, corpus: Path, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return build(tool, corpus, tmp_path_factory.mktemp("index") / "dense", model)


def text_of(passage: Passage) -> str:
    return f"{passage.title} {passage.text}"


def test_the_nearest_passage_of_a_passage_is_itself(tool: ModuleType, index: Path) -> None:
    found = tool.DenseIndex(index)
    assert list(found.passages) == PASSAGES
    for number, passage in enumerate(PASSAGES):
        (best, score), (_, second) = found.hits(text_of(passage), 2)
        assert best == number and score == pytest.approx(1.0, abs=1e-5) and second < score


def test_the_search_is_exact(tool: ModuleType, index: Path, model: Path) -> None:
    from sentence_transformers import SentenceTransformer

    encoder, found = SentenceTransformer(str(model), device="cpu"), tool.DenseIndex(index)
    vectors = encoder.encode([text_of(one) for one in PASSAGES])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for query in ("capital of france", "the river", "lyon lyon paris"):
        vector = encoder.encode([query])[0]
        cosine = vectors @ (vector / np.linalg.norm(vector))
        hits = found.hits(query, 5)
        assert [number for number, _ in hits] == np.argsort(-cosine, kind="stable")[:5].tolist()
        np.testing.assert_allclose([score for _, score in hits], np.sort(cosine)[::-1][:5], 1e-4)
    assert len(found.hits("city", 1_000)) == len(PASSAGES)


def test_many_batches_are_one_index(
    tool: ModuleType, corpus: Path, model: Path, index: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(sys.modules["dense_index"], "BATCH", 5)
    pieces = tool.DenseIndex(build(tool, corpus, tmp_path / "dense", model))
    whole = tool.DenseIndex(index).hits("the capital", 7)
    found = pieces.hits("the capital", 7)
    assert [number for number, _ in found] == [number for number, _ in whole]


def test_queries_and_passages_have_their_own_prefixes(
    tool: ModuleType, corpus: Path, model: Path, tmp_path: Path
) -> None:
    text = text_of(PASSAGES[3])
    alike = build(tool, corpus, tmp_path / "alike", model, "river ", "river ")
    assert tool.DenseIndex(alike).hits(text, 1)[0] == (3, pytest.approx(1.0, abs=1e-5))
    for prefixes in (("river ", ""), ("", "river ")):
        folder = build(tool, corpus, tmp_path / "_".join(prefixes), model, *prefixes)
        scores = dict(tool.DenseIndex(folder).hits(text, len(PASSAGES)))
        assert scores[3] < 0.999


def test_the_server_answers_in_search_r1s_form(
    tool: ModuleType, index: Path, monkeypatch: Any
) -> None:
    served: list[Any] = []
    monkeypatch.setattr(tool.uvicorn, "run", lambda app, **_: served.append(app))
    assert tool.main(["--index", str(index)]) == 0
    client = TestClient(served[0])
    texts = [text_of(PASSAGES[number]) for number in (4, 9)]
    asked = {"queries": texts, "topk": 3, "return_scores": True}
    result = client.post("/retrieve", json=asked).json()["result"]
    for hits, number in zip(result, (4, 9), strict=True):
        assert len(hits) == 3 and hits[0]["score"] == pytest.approx(1.0, abs=1e-5)
        title, text = PASSAGES[number]
        assert hits[0]["document"]["contents"] == f'"{title}"\n{text}'
    one = client.post("/retrieve", json={"queries": texts[:1], "topk": 1}).json()
    # As the client of the environments reads it.
    assert passages_of_answer(one, 1) == (PASSAGES[4],)


@pytest.mark.parametrize("name", ["vectors.f32", "passages.jsonl", "index.json"])
@pytest.mark.parametrize("lost", [True, False])
def test_a_damaged_index_is_one_line(
    tool: ModuleType, index: Path, tmp_path: Path, capsys: Any, name: str, lost: bool
) -> None:
    folder = tmp_path / "dense"
    shutil.copytree(index, folder)
    file = folder / name
    file.unlink() if lost else os.truncate(file, file.stat().st_size - 3)
    assert tool.main(["--index", str(folder)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and str(folder) in error


def test_vectors_of_other_passages_are_refused(
    tool: ModuleType, index: Path, tmp_path: Path
) -> None:
    shutil.copytree(index, tmp_path / "dense")
    about = tmp_path / "dense" / "index.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"passages": 5}))
    with pytest.raises(BadData, match=r"36 passages, not 5\); build it again"):
        tool.DenseIndex(tmp_path / "dense")
    file = tmp_path / "dense" / "vectors.f32"
    os.truncate(file, file.stat().st_size - 64)
    with pytest.raises(BadData, match="build it again"):
        tool.DenseIndex(tmp_path / "dense")


def test_a_model_that_is_not_there_is_one_line(
    tool: ModuleType, corpus: Path, tmp_path: Path, capsys: Any
) -> None:
    given = ["--corpus", str(corpus), "--index", str(tmp_path / "i"), "--dense", str(tmp_path)]
    assert tool.main(given) == 1
    error = capsys.readouterr().err
    assert f"{tmp_path}: no model of sentence-transformers" in error and error.count("\n") == 1
    assert not (tmp_path / "i").exists()
