"""A text that could fit is never cut before it is tokenized; one of megabytes is."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers

from megatron_trace.models.token_length import COMPOSED, longest_token
from tests.unit.models.test_chat import CODECS, FAMILIES, families


def with_changes(**changes: object) -> Tokenizer:
    """A byte-level BPE tokenizer with other parts."""
    tokenizer = Tokenizer.from_str(CODECS["qwen3"]._plain.to_str())
    for name, part in changes.items():
        setattr(tokenizer, name, part)
    return tokenizer


def longest(tokenizer: Tokenizer) -> int | None:
    return longest_token(json.loads(tokenizer.to_str()))


QWEN = with_changes(
    normalizer=normalizers.NFC(),
    pre_tokenizer=pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\s+|\S+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    ),
)
# Whole tokens, texts that become fewer characters in NFC, and long runs of one character.
PIECES = st.one_of(
    st.text(max_size=4),
    st.sampled_from(["<think>", "<tool_call>", "α\u0313\u0300\u0345", "e\u0301", "\u1112\u1161"]),
    st.sampled_from(" .<a").map(lambda char: char * 50),
)


@given(pieces=st.lists(PIECES, max_size=20))
def test_a_text_has_at_least_its_characters_divided_by_the_longest_token(
    pieces: list[str],
) -> None:
    text = "".join(pieces)
    for tokenizer in (QWEN, *(CODECS[family]._plain for family in FAMILIES)):
        bound = longest(tokenizer)
        assert bound is not None
        assert len(tokenizer.encode(text, add_special_tokens=False).ids) * bound >= len(text)


def test_nfc_makes_no_more_characters_into_one() -> None:
    lengths = [len(unicodedata.normalize("NFD", chr(code))) for code in range(0x110000)]
    assert max(lengths) == COMPOSED


@pytest.mark.parametrize(
    "changes",
    [
        {"normalizer": normalizers.Strip()},
        {"normalizer": normalizers.NFKC()},
        {"pre_tokenizer": pre_tokenizers.Whitespace()},
        {"pre_tokenizer": pre_tokenizers.Metaspace()},
        {
            "pre_tokenizer": pre_tokenizers.Sequence(
                [pre_tokenizers.Split(" ", "removed"), pre_tokenizers.ByteLevel()]
            )
        },
    ],
    ids=str,
)
def test_where_characters_may_vanish_nothing_is_cut(changes: dict[str, object]) -> None:
    assert longest(with_changes(**changes)) is None


def test_where_an_added_token_takes_the_spaces_beside_it_nothing_is_cut() -> None:
    tokenizer = with_changes()
    tokenizer.add_tokens([AddedToken("<x>", lstrip=True)])
    assert longest(tokenizer) is None


def test_where_the_vocabulary_lacks_a_byte_nothing_is_cut() -> None:
    description = json.loads(QWEN.to_str())
    description["model"]["vocab"].pop("a")
    assert longest_token(description) is None


@families
@given(text=st.text(max_size=60), enough=st.integers(0, 40))
def test_enough_tokens_are_the_first_of_all_or_all(family: str, text: str, enough: int) -> None:
    codec = CODECS[family]
    some, all_ids = codec.encode(text, enough), codec.encode(text)
    assert some == all_ids or (len(some) >= enough and len(all_ids) >= enough)


def test_megabytes_that_have_no_room_are_not_tokenized() -> None:
    assert 500 <= len(CODECS["qwen3"].encode("a b " * 1_000_000, 500)) < 50_000
