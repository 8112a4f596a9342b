"""An axis has round numbers, and its labels tell them apart."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_trace.report.axes import Frame, ticks, y_axis
from megatron_trace.report.line_chart import Series, line_chart

numbers = st.floats(-1e6, 1e6).filter(lambda one: one == 0 or abs(one) > 1e-9)


@given(numbers, numbers)
def test_ticks_cover_the_range_and_are_all_different(one: float, other: float) -> None:
    low, high = sorted((one, other))
    found = ticks(low, high)
    room = 1e-8 * (abs(low) + abs(high))
    assert found[0] <= low + room and found[-1] >= high - room
    assert len(set(found)) == len(found) >= 2


@pytest.mark.parametrize("percent", [True, False])
@pytest.mark.parametrize("scale", [1e-3, 0.02, 1.0, 30.0])
def test_labels_tell_the_values_of_an_axis_apart(scale, percent) -> None:
    values = ticks(0.98 * scale, scale)
    drawn = y_axis(Frame(0, 1, values[0], values[-1]), values, percent)
    texts = re.findall(r">([^<>]+)</text>", drawn)
    assert len(set(texts)) == len(values) == len(texts)


def test_an_axis_of_whole_percents_has_no_decimals() -> None:
    drawn = y_axis(Frame(0, 1, 0, 1), [0.0, 0.25, 0.5], True)
    assert re.findall(r">([^<>]+)</text>", drawn) == ["0%", "25%", "50%"]


def test_rounding_errors_of_a_constant_do_not_fill_its_chart() -> None:
    steps = [1.0, 2.0, 3.0]
    series = Series("size", steps, [1.0, 1.0 - 1e-9, 1.0 + 1e-9])
    drawn = line_chart("Effective sample size", [series])
    ys = [float(y) for y in re.findall(r'<circle cx="[^"]+" cy="([^"]+)"', drawn)]
    assert len(ys) == 3 and max(ys) - min(ys) < 1.0
