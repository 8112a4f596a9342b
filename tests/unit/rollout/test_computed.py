"""Tokens that the prefix cache could have served, against a count over every pair of calls."""

from hypothesis import given
from hypothesis import strategies as st

from megatron_trace.rollout.computed import ComputedHistories
from megatron_trace.tree import Turn

# Few tokens, so that histories often begin alike; the large one has all four bytes.
TOKENS = st.lists(st.sampled_from([1, 2, 2**31 + 5]), min_size=1, max_size=4)
# A turn is an action, an observation and, if it begins one, a new history.
ROLLOUTS = st.tuples(
    TOKENS, st.lists(st.tuples(TOKENS, TOKENS, st.none() | TOKENS), min_size=1, max_size=3)
)


def turns_of(parts: list[tuple[list[int], list[int], list[int] | None]]) -> list[Turn]:
    """Turns of these parts; the last is terminal and has no observation."""
    turns = [Turn(-1, action, [], [], seen, new_history=new) for action, seen, new in parts]
    turns[-1].observation_ids, turns[-1].new_history = [], None
    return turns


def common(first: list[int], second: list[int]) -> int:
    """Number of tokens with which both begin."""
    count = 0
    while count < min(len(first), len(second)) and first[count] == second[count]:
        count += 1
    return count


@given(st.lists(TOKENS, max_size=6), TOKENS)
def test_the_longest_computed_beginning_is_the_best_over_all_sequences(sequences, sought) -> None:
    computed = ComputedHistories()
    for sequence in sequences:
        computed.add(sequence)
    best = max((common(sequence, sought) for sequence in sequences), default=0)
    assert computed.longest(sought) == best


@given(st.lists(ROLLOUTS, max_size=5))
def test_a_call_could_be_served_what_any_call_before_it_computed(rollouts) -> None:
    computed, calls = ComputedHistories(), []
    for history, parts in rollouts:
        turns, prompt, expected = turns_of(parts), list(history), 0
        for turn in turns:
            known = max((common(call, prompt) for call in calls), default=0)
            expected += min(known, len(prompt) - 1)
            calls.append(prompt + turn.action_ids[:-1])
            prompt = turn.history_after(prompt)
        assert computed.account(history, turns, failed=False) == expected


def test_a_failed_rollout_made_one_call_more_than_it_has_turns() -> None:
    computed = ComputedHistories()
    assert computed.account([1, 2, 3], [], failed=True) == 0
    assert computed.account([1, 2, 3], [], failed=True) == 2
    turn = Turn(-1, [4, 5], [], [], [6, 7])
    # Two prompts: [1, 2, 3], and [1 … 7] of which all but 5, 6 and 7 are computed.
    assert computed.account([1, 2, 3], [turn], failed=True) == 2 + 4
    assert computed.longest([1, 2, 3, 4, 5, 6, 7, 8]) == 7
