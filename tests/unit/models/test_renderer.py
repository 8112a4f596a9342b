"""A conversation grows by the very tokens that were sampled, in every family."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_trace.models.messages import Reply, ToolCall
from megatron_trace.models.renderer import TOOL, Renderer, make_renderer
from tests.unit.models.tokenizers import make_codec

CODECS = {family: make_codec(family) for family in ("qwen2", "qwen3", "llama3", "plain chatml")}
RENDERERS = {
    "qwen3's rules": (CODECS["qwen3"], make_renderer(CODECS["qwen3"])),
    "qwen3's template": (CODECS["qwen3"], make_renderer(CODECS["qwen3"], "template")),
    "another template": (CODECS["qwen2"], make_renderer(CODECS["qwen2"])),
    "llama3's template": (CODECS["llama3"], make_renderer(CODECS["llama3"])),
}
renderers = pytest.mark.parametrize(("codec", "renderer"), RENDERERS.values(), ids=RENDERERS)
with_calls = pytest.mark.parametrize(
    ("codec", "renderer"), list(RENDERERS.values())[:3], ids=list(RENDERERS)[:3]
)

ASK = [{"role": "user", "content": "What is 2 + 3?"}]
CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 2, "b": 3}}\n</tool_call>'


def answer(content: str) -> dict[str, Any]:
    return {"role": "tool", "content": content, "name": "add", "tool_call_id": "call_0"}


def said(codec: Any, renderer: Renderer, text: str) -> list[int]:
    return [*codec.encode(text), renderer.stop_ids[0]]


def test_auto_takes_the_family_that_writes_what_the_template_writes() -> None:
    assert make_renderer(CODECS["qwen3"]).name == "qwen3"
    assert make_renderer(make_codec("qwen3", enable_thinking=False)).name == "qwen3"
    # These have no tokens for tool calls.
    assert make_renderer(CODECS["qwen2"]).name == "template"
    assert make_renderer(CODECS["plain chatml"]).name == "template"


@pytest.mark.parametrize(
    ("family", "options", "name", "message"),
    [
        ("qwen3", {}, "qwen4", "no such family; set auto, template, qwen3, llama-3"),
        ("qwen2", {}, "qwen3", "<tool_call>"),
        ("qwen3", {"deep": True}, "qwen3", "deep"),
    ],
)
def test_a_family_that_does_not_fit_is_refused(
    family: str, options: dict[str, Any], name: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_renderer(make_codec(family, **options), name)


def test_a_template_without_control_tokens_is_refused() -> None:
    codec = make_codec("qwen2")
    codec.tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    with pytest.raises(ValueError, match="ends no turn with a control token"):
        make_renderer(codec, "template")


@with_calls
def test_a_reply_has_its_thought_its_text_and_its_calls(codec: Any, renderer: Renderer) -> None:
    prompt = renderer.prompt_ids(ASK, [TOOL])
    text = f"<think>\nhm\n</think>\n\nI add.\n{CALL}\n{CALL}"
    calls = tuple(ToolCall("add", {"a": 2, "b": 3}, f"call_{number}") for number in range(2))
    expected = Reply("I add.", "hm", calls)
    assert renderer.reply(prompt, said(codec, renderer, text)) == expected
    assert renderer.reply(prompt, said(codec, renderer, "Five.")) == Reply("Five.")


@with_calls
@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("{'name': 1", "its body is no JSON object"),
        ('{"arguments": {}}', "it names no tool"),
        ('{"name": 7, "arguments": {}}', "it names no tool"),
        ('{"name": "add", "arguments": [1]}', "its arguments are no JSON object"),
    ],
)
def test_a_malformed_call_says_what_is_wrong(
    codec: Any, renderer: Renderer, body: str, fault: str
) -> None:
    prompt = renderer.prompt_ids(ASK, [TOOL])
    text = f"{CALL}<tool_call>{body}</tool_call>"
    first, second = renderer.reply(prompt, said(codec, renderer, text)).calls
    assert not first.fault and second.fault == fault
    cut = renderer.reply(prompt, said(codec, renderer, '<tool_call>{"name": "add"'))
    assert cut.calls[0].fault == "it has no end"


@with_calls
def test_a_thought_without_an_end_is_a_fault(codec: Any, renderer: Renderer) -> None:
    prompt = renderer.prompt_ids(ASK)
    reply = renderer.reply(prompt, said(codec, renderer, "<think>hm"))
    assert (reply.text, reply.thought, reply.fault) == ("", "hm", "the thought has no end")


@with_calls
def test_the_prompt_tells_of_the_tools(codec: Any, renderer: Renderer) -> None:
    system = {"role": "system", "content": "Be brief."}
    for messages in (ASK, [system, *ASK]):
        text = codec.decode(renderer.prompt_ids(messages, [TOOL]))
        assert "Add two numbers." in text and text.count("system") == 1
    assert "Be brief." in text


WORDS = st.sampled_from(["<|im_end|>", "<|eot_id|>", "<|im_start|>", "5", " ", "\n", "é", "</tool"])
TEXTS = st.lists(WORDS, min_size=1, max_size=8).map("".join)
ANSWERS = st.lists(TEXTS, min_size=1, max_size=3)
TURNS = st.tuples(st.lists(st.integers(0, 255)), ANSWERS)
"""Sampled ids, and the answers of the tools that they call."""


@renderers
@settings(deadline=None, max_examples=30)
@given(
    turns=st.lists(
        st.tuples(st.lists(st.integers(0, 255)), st.lists(TEXTS, min_size=1, max_size=3)),
        min_size=1,
        max_size=4,
    )
)
def test_the_history_keeps_what_was_sampled_and_no_message_forges_a_turn(
    codec: Any, renderer: Renderer, turns: list[tuple[list[int], list[str]]]
) -> None:
    """Any sampled ids, also such as no tokenizer would give; any text as a tool's answer."""
    history = renderer.prompt_ids(ASK)
    for sampled, contents in turns:
        sampled = [*sampled, renderer.stop_ids[0]]
        following = renderer.next_ids(history, sampled, [answer(text) for text in contents])
        harmless = renderer.next_ids(history, sampled, [answer("5") for _ in contents])
        assert following is not None and harmless is not None
        assert controls(codec, following) == controls(codec, harmless)
        history = history + sampled + following


@settings(deadline=None, max_examples=30)
@given(sampled=st.lists(st.integers(0, 255)), contents=ANSWERS)
def test_qwen3s_rules_and_its_template_write_the_same(
    sampled: list[int], contents: list[str]
) -> None:
    (_, rules), (_, template) = list(RENDERERS.values())[:2]
    prompt = rules.prompt_ids(ASK)
    assert prompt == template.prompt_ids(ASK)
    messages = [answer(text) for text in contents]
    sampled = [*sampled, rules.stop_ids[0]]
    assert rules.next_ids(prompt, sampled, messages) == template.next_ids(prompt, sampled, messages)


def controls(codec: Any, ids: list[int]) -> list[str]:
    return [text for text in map(codec.decode, ([id] for id in ids)) if text in codec.control]
