"""Histories without a turn's thought."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from renderers import create_renderer
from renderers.configs import config_from_name

from megatron_trace.models.renderer import make_renderer
from megatron_trace.models.renderer_of_family import _PlainTokenizer
from megatron_trace.models.thoughts import ThoughtMarks, thought_marks, without_thought
from tests.unit.models.tokenizers import make_codec

BEGIN, END, SPACE = 1, 2, 3
MARKS = ThoughtMarks(BEGIN, END, frozenset([SPACE]))
WORDS = st.lists(st.integers(4, 6), max_size=4)


@given(WORDS, WORDS, st.lists(st.integers(1, 6), max_size=6), WORDS)
def test_what_is_not_of_the_thought_keeps_its_tokens(history, before, thought, after) -> None:
    sampled = [*before, BEGIN, *thought, END, SPACE, SPACE, *after]
    assert without_thought(history, sampled, MARKS) == [*history, *before, *after]


@given(WORDS, WORDS)
def test_a_thought_that_the_prompt_began_goes_from_there_on(history, after) -> None:
    prompt, sampled = [*history, BEGIN, SPACE], [5, END, *after]
    assert without_thought(prompt, sampled, MARKS) == [*history, *after]
    # This one is quoted in a message.
    quoted = [*history, BEGIN, 4, SPACE]
    assert without_thought(quoted, sampled, MARKS) == [*quoted, *after]


@pytest.mark.parametrize("sampled", [[], [4, 5], [BEGIN, 4, 5]])
def test_a_turn_without_a_whole_thought_stays_as_it_is(sampled: list[int]) -> None:
    assert without_thought([4, BEGIN, SPACE], sampled, MARKS) is None


def test_it_is_what_the_family_writes_of_earlier_turns() -> None:
    """By the package's own rules of Qwen3, which drop thoughts before the last question."""
    codec = make_codec("qwen3")
    ask, again = ({"role": "user", "content": text} for text in ("2 + 3?", "And 4?"))
    ours, marks = make_renderer(codec, "qwen3"), thought_marks(codec)
    prompt = ours.prompt_ids([ask])
    sampled = [*codec.encode("<think>\nhm\n</think>\n\n5 it is"), *ours.stop_ids[:1]]
    following = ours.next_ids(prompt, sampled, [again])
    assert following is not None
    kept = without_thought(prompt, sampled, marks)
    assert kept is not None
    theirs = create_renderer(_PlainTokenizer(codec), config_from_name("qwen3"))
    said = {"role": "assistant", "reasoning_content": "hm", "content": "5 it is"}
    expected = theirs.render_ids([ask, said, again], add_generation_prompt=True)
    assert [*kept, *following] == expected
