"""The tokenizer of a small start policy, and how a demonstration becomes token ids.

Used by the tools named make_*_policy.py.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

CONTROL = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
UNUSED = ["<|predictor_0|>", "<|predictor_1|>"]
"""The last two tokens. They occur in no text and fill the vocabulary up."""
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


QWEN3_TAGS = [
    "<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>",
]  # fmt: skip


def with_tool_answers(template: str) -> str:
    """A template as CHAT_TEMPLATE that writes tools' answers as Qwen3 does.

    How Qwen3 tells of tools, the package renderers knows.
    """
    message = "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    return template.replace(
        message,
        "{% if message['role'] == 'tool' %}"
        "{% if loop.first or messages[loop.index0 - 1]['role'] != 'tool' %}"
        "<|im_start|>user{% endif %}"
        "{{ '\n' }}<tool_response>\n{{ message['content'] }}\n</tool_response>"
        "{% if loop.last or messages[loop.index0 + 1]['role'] != 'tool' %}<|im_end|>\n{% endif %}"
        f"{{% else %}}{message}{{% endif %}}",
    )


@dataclass(frozen=True)
class Segment:
    """A text that is tokenized alone: the question, an action or an observation.

    Attributes:
        kind: `question`, `action` or `observation`.
        learn: whether the policy learns to say it.
    """

    kind: str
    text: str
    learn: bool


WORDS = pre_tokenizers.Sequence(
    [pre_tokenizers.Digits(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
)
"""How `word_tokenizer` splits a text. A word takes the space before it along, a number does not."""


def word_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A tokenizer for chats with tools. Every word and every number of `texts` is one token.

    What is one token is copied in one go, which a small policy learns soonest. A number is the same
    token after a space and without one; a word is not. Other words become bytes. The last tokens are
    Qwen3's for thoughts and tools, control tokens and two unused ones.
    """
    tag = re.compile("|".join(map(re.escape, [*QWEN3_TAGS, *CONTROL])))
    words = set(pre_tokenizers.ByteLevel.alphabet())
    for text in texts:
        for plain in tag.split(text):
            words.update(word for word, _ in WORDS.pre_tokenize_str(plain))
    vocabulary = {word: number for number, word in enumerate(sorted(words))}
    # Without merges a word is either whole in the vocabulary, or bytes.
    bpe = Tokenizer(models.BPE(vocabulary, [], ignore_merges=True))
    bpe.pre_tokenizer = WORDS
    return _finished(bpe, QWEN3_TAGS, with_tool_answers(CHAT_TEMPLATE))


def train_tokenizer(
    texts: Iterable[str],
    tags: Sequence[str],
    vocabulary: int,
    chat_template: str = CHAT_TEMPLATE,
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE; its last tokens are `tags`, control tokens and two unused ones.

    Args:
        texts: without tags.
        vocabulary: number of tokens in all.

    Raises:
        ValueError: `texts` are too few to fill the vocabulary.
    """
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(tags) - len(CONTROL) - len(UNUSED),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    if bpe.get_vocab_size() != vocabulary - len(tags) - len(CONTROL) - len(UNUSED):
        raise ValueError(f"the texts gave {bpe.get_vocab_size()} tokens, too few for {vocabulary}")
    return _finished(bpe, tags, chat_template)


def _finished(bpe: Tokenizer, tags: Sequence[str], chat_template: str) -> PreTrainedTokenizerFast:
    """Add tags, control tokens and unused ones."""
    bpe.decoder = decoders.ByteLevel()
    # Tags are ordinary tokens: the environment reads them after decoding with skip_special_tokens.
    bpe.add_tokens([AddedToken(tag, normalized=False) for tag in tags])
    bpe.add_special_tokens([AddedToken(token, normalized=False) for token in CONTROL + UNUSED])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=chat_template,
        clean_up_tokenization_spaces=False,
        model_max_length=1_024,
    )


def without_tags(demonstrations: Iterable[list[Segment]], tags: Sequence[str]) -> list[str]:
    """The texts of demonstrations without tags: what a tokenizer is trained on."""
    tag = re.compile("|".join(map(re.escape, tags)))
    return [tag.sub("", segment.text) for one in demonstrations for segment in one]


def prompt_ids(tokenizer: PreTrainedTokenizerFast, question: str) -> list[int]:
    """Token ids of the prompt, as the rollout makes them."""
    messages = [{"role": "user", "content": question}]
    return list(
        tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    )


def encode(
    tokenizer: PreTrainedTokenizerFast, segments: list[Segment]
) -> tuple[list[int], list[bool]]:
    """Token ids of an episode, and for each whether the policy learns it.

    Each segment is tokenized alone, as in a rollout: a token never spans an action and an
    observation.
    """
    ids: list[int] = []
    learn: list[bool] = []
    for segment in segments:
        if segment.kind == "question":
            piece = prompt_ids(tokenizer, segment.text)
        else:
            piece = tokenizer.encode(segment.text, add_special_tokens=False)
        ids += piece
        learn += [segment.learn] * len(piece)
    return ids, learn
