"""Countdown's rules and values, against a player who tries everything in the plainest way."""

from collections.abc import Iterator
from fractions import Fraction
from itertools import permutations
from operator import add, mul, sub, truediv

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_trace.envs.countdown_rules import (
    Operation,
    after,
    all_values,
    fault_of,
    legal_operations,
    random_value,
    result_of,
)

SIGNS = {"+": add, "-": sub, "*": mul, "/": truediv}
FEW = st.lists(st.integers(1, 12), min_size=3, max_size=4)


def tried(numbers: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every choice of two numbers in every order with every sign, by Python's own arithmetic."""
    for first, second in permutations(range(len(numbers)), 2):
        rest = [n for place, n in enumerate(numbers) if place not in (first, second)]
        for sign in SIGNS:
            result = SIGNS[sign](Fraction(numbers[first]), Fraction(numbers[second]))
            if result > 0 and result.denominator == 1:
                text = f"{numbers[first]} {sign} {numbers[second]}"
                yield text, tuple(sorted([*rest, int(result)]))


def distinct(numbers: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Of operations that are the same but for the order, one."""
    found: dict[str, tuple[int, ...]] = {}
    for text, left in tried(numbers):
        a, sign, b = text.split()
        found[f"{min(int(a), int(b))} {sign} {max(int(a), int(b))}"] = left
    return found


def brute_value(numbers: tuple[int, ...], target: int, operations: int) -> Fraction:
    if target in numbers:
        return Fraction(1)
    if len(numbers) == 1 or operations == 0:
        return Fraction(0)
    following = distinct(numbers).values()
    return sum(brute_value(left, target, operations - 1) for left in following) / Fraction(
        len(following)
    )


def brute_reachable(numbers: tuple[int, ...], target: int) -> bool:
    return target in numbers or any(brute_reachable(left, target) for _, left in tried(numbers))


@settings(max_examples=60, deadline=None)
@given(FEW, st.integers(1, 150), st.integers(0, 4))
def test_the_value_is_that_of_trying_everything(
    numbers: list[int], target: int, operations: int
) -> None:
    expected = brute_value(tuple(numbers), target, operations)
    assert random_value(numbers, target, operations) == pytest.approx(float(expected), abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(FEW, st.integers(1, 150))
def test_a_target_can_be_reached_where_the_value_is_above_0(
    numbers: list[int], target: int
) -> None:
    assert (random_value(numbers, target, 9) > 0) == brute_reachable(tuple(numbers), target)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 25), min_size=3, max_size=4))
def test_all_values_are_those_of_each_target(numbers: list[int]) -> None:
    values = all_values(numbers, 199)
    assert all(target < 200 for target in values)
    for target in range(1, 200):
        expected = random_value(numbers, target, len(numbers) - 1)
        assert values.get(target, 0.0) == pytest.approx(expected, abs=1e-12)


@given(st.lists(st.integers(1, 30), min_size=2, max_size=6))
def test_the_legal_operations_are_those_without_a_fault(numbers: list[int]) -> None:
    legal = legal_operations(numbers)
    assert len(set(legal)) == len(legal) == len(distinct(tuple(numbers)))
    for operation in legal:
        assert fault_of(operation, numbers) == ""
        left = after(operation, numbers)
        assert len(left) == len(numbers) - 1 and result_of(operation) in left


@given(
    st.lists(st.integers(1, 9), min_size=2, max_size=4),
    st.builds(Operation, st.integers(0, 9), st.sampled_from("+-*/"), st.integers(0, 9)),
)
def test_an_operation_has_a_fault_unless_trying_finds_it(
    numbers: list[int], operation: Operation
) -> None:
    found = dict(tried(tuple(numbers)))
    assert (fault_of(operation, numbers) == "") == (str(operation) in found)
    if str(operation) in found:
        assert after(operation, numbers) == found[str(operation)]


@pytest.mark.parametrize(
    ("operation", "fault"),
    [
        (Operation(9, "+", 3), "9 is not among the numbers"),
        (Operation(3, "*", 3), "3 is there only once"),
        (Operation(3, "-", 7), "3 - 7 is no whole number above 0"),
        (Operation(8, "-", 8), "8 - 8 is no whole number above 0"),
        (Operation(8, "/", 3), "8 / 3 is no whole number above 0"),
    ],
)
def test_a_fault_is_told(operation: Operation, fault: str) -> None:
    assert fault_of(operation, [3, 7, 8, 8]) == fault


@pytest.mark.parametrize(
    ("numbers", "target", "operations", "value"),
    [
        # 2 + 1, 2 - 1, 2 * 1, 2 / 1: one of four wins.
        ([1, 2], 3, 1, 1 / 4),
        ([1, 2], 3, 0, 0.0),
        ([1, 2], 2, 0, 1.0),
        # 5 + 3, 5 - 3, 5 * 3; the first operation need not use the third number.
        ([3, 5, 100], 15, 1, 1 / 10),
        ([1, 1, 1], 100, 9, 0.0),
    ],
)
def test_values_that_can_be_counted_by_hand(
    numbers: list[int], target: int, operations: int, value: float
) -> None:
    assert random_value(numbers, target, operations) == pytest.approx(value)
