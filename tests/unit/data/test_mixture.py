"""The weighted draw: shares of every length, epochs of every source, and any position again."""

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_trace.data.mixture import WeightedTasks, draws, mixed_stream
from megatron_trace.data.tasks import task_stream

weights_of = st.lists(st.floats(0.01, 100) | st.integers(1, 5), min_size=1, max_size=6)


def tasks_of(name: str, count: int) -> list[dict]:
    return [{"id": f"{name}/{number}"} for number in range(count)]


@given(weights_of)
def test_every_beginning_has_the_shares_rounded_up_or_down(weights) -> None:
    shares = [weight / sum(weights) for weight in weights]
    taken = [0] * len(weights)
    for number, source in enumerate(islice(draws(weights), 300), 1):
        taken[source] += 1
        # A little more than 1 for the rounding of floats.
        assert all(
            abs(one - share * number) < 1 + 1e-9 for one, share in zip(taken, shares, strict=True)
        )


@given(weights_of, st.lists(st.integers(1, 9), min_size=6, max_size=6), st.integers(0, 80))
def test_a_stream_resumes_from_any_position(weights, counts, start) -> None:
    names = "abcdef"[: len(weights)]
    sources = [
        WeightedTasks(tasks_of(name, count), weight, name)
        for name, count, weight in zip(names, counts, weights, strict=False)
    ]
    whole = list(islice(mixed_stream(sources, 3), 100))
    assert list(islice(mixed_stream(sources, 3, start), 100 - start)) == whole[start:]


@given(weights_of, st.integers(1, 9))
def test_a_source_gives_every_task_once_an_epoch_whatever_the_others_are(weights, count) -> None:
    others = [WeightedTasks(tasks_of(f"o{n}", 2), w, f"o{n}") for n, w in enumerate(weights)]
    mine = WeightedTasks(tasks_of("mine", count), 2.0, "mine")
    stream = mixed_stream([*others, mine], seed=7)
    ids = [task["id"] for task in stream_until(stream, "mine/", 3 * count)]
    for epoch in range(3):
        assert sorted(ids[epoch * count : (epoch + 1) * count]) == [
            task["id"] for task in mine.tasks
        ]
    alone = task_stream(mine.tasks, 7, name="mine")
    assert ids == [task["id"] for task in islice(alone, 3 * count)]


def stream_until(stream, prefix: str, wanted: int) -> list[dict]:
    found: list[dict] = []
    for task in stream:
        if task["id"].startswith(prefix):
            found.append(task)
        if len(found) == wanted:
            return found
    raise AssertionError("the stream ended")


def test_one_source_without_a_name_has_the_order_of_its_tasks_alone() -> None:
    tasks = tasks_of("a", 5)
    mixed = list(islice(mixed_stream([WeightedTasks(tasks)], 3), 20))
    assert mixed == list(islice(task_stream(tasks, 3), 20))


def test_sources_have_orders_of_their_own() -> None:
    tasks = tasks_of("a", 50)
    assert list(islice(task_stream(tasks, 3, name="a"), 50)) != list(
        islice(task_stream(tasks, 3, name="b"), 50)
    )


@pytest.mark.parametrize("sources", [[WeightedTasks([])], [WeightedTasks([{"id": 1}])]])
def test_no_tasks_and_a_negative_start_are_errors(sources) -> None:
    with pytest.raises(ValueError, match="needs"):
        next(mixed_stream(sources, 0, start=-1 if sources[0].tasks else 0))
