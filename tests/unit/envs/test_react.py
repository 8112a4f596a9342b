"""The ReAct format: what parses and what does not."""

import pytest

from megatron_trace.envs.react import Action, parse


def test_a_thought_may_come_before_a_search() -> None:
    assert parse("I need it. <search> Lyon </search>") == Action("search", "Lyon")


def test_an_answer_needs_no_thought_and_no_spaces() -> None:
    assert parse("<answer>Paris</answer>\n") == Action("answer", "Paris")


def test_a_content_may_span_lines() -> None:
    assert parse("<answer> New\nYork </answer>") == Action("answer", "New\nYork")


@pytest.mark.parametrize(
    "thought",
    [
        "<think> I should use <search> and not <answer> . </think>",
        "It was <search> Lyon </search> before . </think>",
        "<think> one <search> </think> <think> two </search> </think>",
    ],
)
def test_a_thought_may_quote_tags(thought) -> None:
    assert parse(f"{thought}\n\n<search> Lyon </search>") == Action("search", "Lyon")


def test_a_whole_tag_in_an_open_thought_is_an_action() -> None:
    assert parse("<think> maybe <search> Lyon </search>") == Action("search", "Lyon")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<think> I should use <search> and then <answer>",
        "<think> <search> Lyon </search> </think>",
        "I think it is Paris.",
        "<search> Lyon",
        "<search>  </search>",
        "<search> Lyon </answer>",
        "<search> Lyon </search> <answer> Paris </answer>",
        "<search> <answer> Paris </answer>",
        "<search> a </search> <search> b </search>",
        "<answer> Paris </answer> I am sure.",
    ],
)
def test_a_malformed_turn_has_no_action(text) -> None:
    assert parse(text) is None
