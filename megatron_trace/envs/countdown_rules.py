"""Countdown's rules, and what every state is worth to a player whose success is known exactly.

A state is the numbers that are left and the target. An operation takes two of the numbers and puts
its result in their place. As in the television game, a result must be a whole number above 0.
Nothing is lost by this rule: a way to a target above 0 that uses other whole numbers can always be
rewritten without them.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

Numbers = tuple[int, ...]
"""The numbers that are left, ascending."""


class Operation(NamedTuple):
    """What is done in a turn.

    Attributes:
        left, right: numbers, in the order in which they are written.
        sign: one of `+ - * /`.
    """

    left: int
    sign: str
    right: int

    def __str__(self) -> str:
        return f"{self.left} {self.sign} {self.right}"


def result_of(operation: Operation) -> int | None:
    """The result of an operation; None where it is no whole number above 0."""
    left, sign, right = operation
    if sign == "+":
        return left + right
    if sign == "*":
        return left * right
    if sign == "-":
        return left - right if left > right else None
    return left // right if right and left % right == 0 else None


def fault_of(operation: Operation, numbers: Sequence[int]) -> str:
    """Why an operation cannot be done with `numbers`, or ""."""
    left, _, right = operation
    for number in (left, right):
        if number not in numbers:
            return f"{number} is not among the numbers"
    if left == right and numbers.count(left) < 2:
        return f"{left} is there only once"
    if result_of(operation) is None:
        return f"{operation} is no whole number above 0"
    return ""


def after(operation: Operation, numbers: Sequence[int]) -> Numbers:
    """The numbers that are left after a legal operation."""
    rest = list(numbers)
    rest.remove(operation.left)
    rest.remove(operation.right)
    result = result_of(operation)
    assert result is not None, "the operation is legal"
    return tuple(sorted([*rest, result]))


def legal_operations(numbers: Sequence[int]) -> list[Operation]:
    """All legal operations, each once.

    Equal numbers are the same number. `7 + 8` and `8 + 7` are one operation, written with the
    larger number first; so it is with `*`.
    """
    return [operation for operation, _, _ in moves(tuple(sorted(numbers)))]


def moves(numbers: Numbers) -> Iterator[tuple[Operation, int, Numbers]]:
    """Every legal operation with its result and the numbers after it."""
    seen = set()
    for larger in range(1, len(numbers)):
        for smaller in range(larger):
            a, b = numbers[larger], numbers[smaller]
            if (a, b) in seen:
                continue
            seen.add((a, b))
            rest = numbers[:smaller] + numbers[smaller + 1 : larger] + numbers[larger + 1 :]
            for sign in "+-*/":
                operation = Operation(a, sign, b)
                result = result_of(operation)
                if result is not None:
                    yield operation, result, tuple(sorted((*rest, result)))


def random_value(numbers: Sequence[int], target: int, operations: int) -> float:
    """The probability that random play reaches the target.

    The player chooses each time uniformly among `legal_operations`, until the target is among the
    numbers or nothing can be done:

        V(s) = 1                            if the target is among the numbers
        V(s) = 0                            if one number or no operation is left
        V(s) = mean over operations of V(s') else

    Every state that can be reached has a positive probability, so V(s) > 0 says that the target can
    still be reached.

    Args:
        numbers: whole numbers above 0.
        operations: how many may still be done.

    Returns:
        V(s), exact but for rounding.
    """
    numbers = tuple(sorted(numbers))
    if target in numbers:
        return 1.0
    # More operations than this cannot be done; so states are found again in the memory.
    return _value(numbers, target, min(operations, len(numbers) - 1))


# 6 numbers lead to some thousand states of 3 numbers or more.
@lru_cache(maxsize=65_536)
def _value(numbers: Numbers, target: int, operations: int) -> float:
    """V of a state without the target."""
    if operations <= 0:
        return 0.0
    # Pairs are most of all states, and are faster looked at than remembered.
    look = _last_value if len(numbers) == 3 else _value
    total, count = 0.0, 0
    for _, result, left in moves(numbers):
        count += 1
        if result == target:
            total += 1.0
        elif operations > 1:
            total += look(left, target, operations - 1)
    return total / count


def _last_value(pair: Numbers, target: int, operations: int) -> float:
    """V of two numbers, neither of them the target, with one operation to do."""
    smaller, larger = pair
    results = [larger + smaller, larger * smaller]
    if larger > smaller:
        results.append(larger - smaller)
    if larger % smaller == 0:
        results.append(larger // smaller)
    return results.count(target) / len(results)


def all_values(numbers: Sequence[int], highest: int) -> dict[int, float]:
    """`random_value` of every target up to `highest` that can be reached, with enough operations."""
    return _all_values(tuple(sorted(numbers)), highest, {})


def _all_values(
    numbers: Numbers, highest: int, known: dict[Numbers, dict[int, float]]
) -> dict[int, float]:
    """`all_values`; `known` remembers those of states of three numbers or more."""
    if numbers in known:
        return known[numbers]
    totals: dict[int, float] = defaultdict(float)
    count = 0
    for _, result, left in moves(numbers):
        count += 1
        following = _all_values(left, highest, known) if len(left) > 1 else {result: 1.0}
        for target, value in following.items():
            totals[target] += value
    found = {target: total / count for target, total in totals.items() if target <= highest}
    found |= {number: 1.0 for number in numbers if number <= highest}
    if len(numbers) > 2:
        known[numbers] = found
    return found
