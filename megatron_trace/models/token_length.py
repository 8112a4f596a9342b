"""How much text one token can stand for. With it the beginning of a text tells that it is too long,
and nobody tokenizes megabytes that have no room.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import pre_tokenizers

COMPOSED = 4
"""Most characters that Unicode's NFC makes into one, such as a Greek letter and three marks."""


def longest_token(description: Mapping[str, Any]) -> int | None:
    """Most characters of a text that become one token; None where there may be no bound.

    Byte-level BPE has a bound, which is the tokenizer of all of today's large families: every byte
    becomes part of a token. Others may drop characters, or make many unknown ones into one token.

    Args:
        description: the content of a tokenizer.json.
    """
    normalizers = _parts(description["normalizer"], "normalizers")
    vocabulary, added = description["model"].get("vocab", {}), description["added_tokens"]
    if (
        description["model"]["type"] != "BPE"
        or not all(one["type"] == "NFC" for one in normalizers)
        or not _keeps_bytes(_parts(description["pre_tokenizer"], "pretokenizers"))
        or not vocabulary.keys() >= set(pre_tokenizers.ByteLevel.alphabet())
        # These take all the spaces beside them.
        or any(one["lstrip"] or one["rstrip"] for one in added)
    ):
        return None
    # In the vocabulary each letter stands for one byte, and a character has one byte or more.
    longest = max(map(len, [*vocabulary, *(one["content"] for one in added)]))
    return longest * (COMPOSED if normalizers else 1)


def _parts(step: Mapping[str, Any] | None, key: str) -> Sequence[Mapping[str, Any]]:
    """A step of a tokenizer.json as the list of what it does."""
    if step is None:
        return []
    return step[key] if step["type"] == "Sequence" else [step]


def _keeps_bytes(steps: Sequence[Mapping[str, Any]]) -> bool:
    """Whether these steps bring every byte of a text to the byte-level vocabulary."""
    kept = [
        one["type"] in ("ByteLevel", "Digits")
        or (one["type"] == "Split" and one["behavior"] != "Removed")
        for one in steps
    ]
    return all(kept) and any(one["type"] == "ByteLevel" for one in steps)
