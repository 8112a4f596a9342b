"""After an error rank 0 knows whether the other train ranks can still be called."""

from collections.abc import Iterator

import pytest

from megatron_trace.policy import ranks
from megatron_trace.policy.policy import Policy
from megatron_trace.policy.ranks import RankGroup


class FakePolicy:
    """One rank's methods; its weights are gathered as far as `gathered` counts."""

    gathered = 0

    def weights(self) -> Iterator[tuple[str, int]]:
        for number in range(3):
            FakePolicy.gathered += 1
            yield str(number), number


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> RankGroup:
    FakePolicy.gathered = 0
    monkeypatch.setattr(ranks.distributed, "get_rank", lambda: 0)
    monkeypatch.setattr(ranks.distributed, "new_group", lambda **settings: None)
    monkeypatch.setattr(ranks.distributed, "broadcast_object_list", lambda *box, **named: None)
    monkeypatch.setattr(Policy, "weights", FakePolicy.weights)
    return RankGroup(FakePolicy())  # type: ignore[arg-type]


def test_ranks_are_at_rest_before_and_after_a_call(group: RankGroup) -> None:
    assert group.come_to_rest()
    assert group.call(lambda policy: 3) == 3
    assert group.come_to_rest()


def test_an_error_of_a_call_leaves_them_where_nobody_knows(group: RankGroup) -> None:
    with pytest.raises(ZeroDivisionError):
        group.call(lambda policy: 1 / 0)
    assert not group.come_to_rest()


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_weights_that_nobody_took_are_gathered_to_their_end(group: RankGroup, taken: int) -> None:
    weights = group.call(Policy.weights)
    for _ in range(taken):
        next(weights)
    assert group.come_to_rest()
    assert FakePolicy.gathered == 3


def test_an_error_while_weights_are_gathered_is_one_of_the_ranks(
    group: RankGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(policy: FakePolicy) -> Iterator[tuple[str, int]]:
        yield "0", 0
        raise RuntimeError("connection closed by peer")

    monkeypatch.setattr(Policy, "weights", broken)
    weights = group.call(Policy.weights)
    next(weights)
    assert not group.come_to_rest()


def test_an_export_that_the_disk_refused_is_over_on_all_ranks(
    group: RankGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(policy: FakePolicy) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(Policy, "save_hf", full)
    with pytest.raises(OSError, match="No space left"):
        group.call(Policy.save_hf)  # type: ignore[call-arg]
    assert group.come_to_rest()
