"""What the tools that make start policies share: the loss, tokenizers, demonstrations of cloning_tools."""

import random
import re
from pathlib import Path

import cloning
import cloning_tools
import pytest
import torch
from cloning_chat import call
from cloning_tokenizer import UNUSED, word_tokenizer
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from megatron_trace.config import EnvironmentConfig
from megatron_trace.envs import make_environments
from megatron_trace.models.chat import TextCodec

COUNTDOWN = Path("examples/countdown/start_policy")
TASK = {"question": "What do 3 pens cost?", "prices": {"pen": 4}, "answer": 12}
SAID = [call("price", item="pen"), "12"]


@pytest.fixture(scope="module")
def shop():
    return make_environments(EnvironmentConfig("examples/environment/shop.py", max_turns=4))


@pytest.fixture(scope="module")
def tokenizer(shop):
    return cloning_tools.chat_tokenizer(shop(), TASK, ["pen 0 1 2 3 4 5 6 7 8 9 12", *SAID])


@pytest.fixture(scope="module")
def played(shop, tokenizer):
    return cloning_tools.Demonstrator(tokenizer).play(shop(), TASK, SAID)


def test_a_beginning_that_is_computed_once_changes_neither_loss_nor_gradient(
    tokenizer, monkeypatch
) -> None:
    torch.manual_seed(0)
    ids = torch.randint(0, 300, (3, 90))
    ids[:, :80] = ids[0, :80]
    learn = torch.zeros(3, 90, dtype=torch.bool)
    learn[:, 84:] = True
    assert cloning.shared_length(ids, learn) == 79
    model = cloning.new_model(tokenizer, cloning.Size(64, 2), seed=0)
    found = []
    for worth in (64, 1_000):
        monkeypatch.setattr(cloning, "WORTH_SHARING", worth)
        model.zero_grad()
        loss = cloning.cross_entropy(model, ids, learn)
        loss.backward()
        found.append((loss, model.model.layers[0].self_attn.k_proj.weight.grad.clone()))
    torch.testing.assert_close(found[0], found[1])


def test_nothing_that_is_learnt_is_in_the_shared_beginning() -> None:
    ids, learn = torch.zeros(2, 10, dtype=torch.long), torch.zeros(2, 10, dtype=torch.bool)
    assert cloning.shared_length(ids, learn) == 0
    learn[1, 4] = True
    assert cloning.shared_length(ids, learn) == 3


def test_words_and_numbers_are_one_token_and_other_words_are_bytes() -> None:
    tokenizer = word_tokenizer(["Berlin 126 <tool_call>x</tool_call><|im_end|>"])
    for text, tokens in [("Berlin", 1), ("126", 1), (" 126", 2), ("Bern", 4), ("é", 2)]:
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert len(ids) == tokens and TextCodec(tokenizer).decode(ids) == text
    assert tokenizer.convert_tokens_to_ids(UNUSED[-1]) == len(tokenizer) - 1


def test_a_demonstration_learns_what_the_policy_says_and_nothing_else(played, tokenizer) -> None:
    codec = TextCodec(tokenizer)
    ids, learn = played.whole()
    spoken = codec.decode([token for token, said in zip(ids, learn, strict=True) if said])
    assert spoken == "".join(f"{text}<|im_end|>" for text in SAID)
    assert "<tool_response>\n4\n</tool_response>" in codec.decode(ids)


def test_an_excerpt_is_the_question_the_last_observation_and_a_turn(played, tokenizer) -> None:
    codec = TextCodec(tokenizer)
    first, second = played.excerpts()
    assert codec.decode(first[0]).startswith("\n<|im_start|>user\nWhat do 3 pens cost?")
    text = codec.decode(second[0])
    assert "What do 3 pens cost?" in text and text.endswith("assistant\n12<|im_end|>")
    assert SAID[0] not in text and "multiply_and_add" not in text
    assert sum(first[1]) + sum(second[1]) == sum(played.whole()[1])


def test_an_exchanged_word_is_the_same_one_wherever_it_occurs(played, tokenizer) -> None:
    numbers = [str(number) for number in range(10)]
    exchange, codec = cloning_tools.Exchange(tokenizer, numbers), TextCodec(tokenizer)
    counts, prices = set(), set()
    for seed in range(20):
        other = exchange(played, random.Random(seed))
        asked = re.findall(r"What do (\d+) pens cost", codec.decode(other.question))
        priced = re.findall(r"<tool_response>\n(\d+)\n", codec.decode(other.turns[0][1]))
        assert len(asked) == len(priced) == 1
        # 12 is not among the words.
        assert codec.decode(other.turns[1][0]) == "12<|im_end|>" and other.tools == played.tools
        counts.update(asked)
        prices.update(priced)
    assert len(counts) > 5 and len(prices) > 5


def test_a_policy_that_begins_from_another_has_its_layers_and_its_numbers() -> None:
    older = Qwen3ForCausalLM.from_pretrained(COUNTDOWN, dtype=torch.float32)
    older_tokenizer = PreTrainedTokenizerFast.from_pretrained(COUNTDOWN)
    tokenizer = word_tokenizer(["7 12 Lyon Paris"])
    model = cloning.new_model(tokenizer, cloning.Size(128, 4), seed=0)
    cloning.begin_from(model, tokenizer, COUNTDOWN, [" Lyon", " Paris"], seed=0)
    name = "model.layers.3.self_attn.o_proj.weight"
    torch.testing.assert_close(model.state_dict()[name], older.state_dict()[name])
    rows = model.get_input_embeddings().weight
    known = older.get_input_embeddings().weight
    for number in ("7", "12"):
        (row,) = older_tokenizer.encode(f" {number}", add_special_tokens=False)
        torch.testing.assert_close(rows[tokenizer.convert_tokens_to_ids(number)], known[row])
    lyon, paris = (rows[token] for token in tokenizer.encode(" Lyon Paris"))
    assert not torch.allclose(lyon, paris)


def test_drawn_rows_have_the_mean_and_the_covariance_of_the_known_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    known = torch.randn(500, 3, generator=generator) @ torch.tensor(
        [[2.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.1]]
    ) + torch.tensor([1.0, 2.0, 3.0])
    drawn = cloning.drawn_like(known, 40_000, generator)
    torch.testing.assert_close(drawn.mean(0), known.mean(0), atol=0.05, rtol=0)
    torch.testing.assert_close(torch.cov(drawn.T), torch.cov(known.T), atol=0.1, rtol=0)
