"""Calls that would keep the worker busy for hours: numbers of many digits.

BFCL has no such limit. One call of this kind stops its whole evaluation, and here it would stop all
episodes of the worker, as Python computes such numbers without letting other threads run.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

DIGITS = 10_000
"""A number may have this many digits. Python itself prints at most 4,300."""

COUNTS_OF_DIGITS = {
    "logarithm": ("precision", 2),
    "square_root": ("precision", 1),
    "round_number": ("decimal_places", 1),
}
"""Function of MathAPI -> the name and the place of the argument that is a number of digits."""


def check_size(method: str, positional: Sequence[Any], named: Mapping[str, Any]) -> None:
    """Refuse a call that would compute a number of more than `DIGITS` digits.

    Raises:
        ValueError: it would.
    """
    values = [*positional, *named.values()]
    too_long = False
    if method in COUNTS_OF_DIGITS:
        name, place = COUNTS_OF_DIGITS[method]
        digits = positional[place] if len(positional) > place else named.get(name)
        too_long = isinstance(digits, int | float) and abs(digits) > DIGITS
        # mpmath reads texts as numbers.
        texts = [value for value in values if isinstance(value, str)]
        too_long |= any(re.search(r"[eE][+-]?\d{5}", text) for text in texts)
    elif method == "power" and all(isinstance(value, int) for value in values):
        base = positional[0] if positional else named.get("base", 0)
        exponent = positional[1] if len(positional) > 1 else named.get("exponent", 0)
        # A digit has log2(10) = 3.3 bits.
        too_long = abs(base) > 1 and exponent * abs(base).bit_length() > 3.3 * DIGITS
    if too_long:
        raise ValueError(f"a number of more than {DIGITS:,} digits is not computed")
