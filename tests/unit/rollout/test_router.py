"""Jobs follow their trees, within reason."""

from megatron_trace.rollout.router import SLACK, Router


def test_new_trees_go_to_the_least_loaded_worker() -> None:
    assert Router().choose("a", {0: 3, 1: 1, 2: 2}, concurrency=8) == 1


def test_a_tree_goes_where_it_was_sampled_before() -> None:
    router = Router()
    assert router.choose("a", {0: 0, 1: 1}, concurrency=64) == 0
    assert router.choose("a", {0: SLACK, 1: 0}, concurrency=64) == 0
    assert router.choose("", {0: SLACK, 1: 0}, concurrency=64) == 1


def test_a_tree_leaves_a_worker_that_is_much_busier_or_full_or_gone() -> None:
    router = Router()
    router.choose("a", {0: 0, 1: 1}, concurrency=64)
    assert router.choose("a", {0: SLACK + 1, 1: 0}, concurrency=64) == 1
    assert router.choose("a", {0: 4, 1: 3}, concurrency=4) == 1
    assert router.choose("a", {1: 3}, concurrency=4) == 1


def test_no_worker_takes_more_than_its_concurrency() -> None:
    assert Router().choose("a", {0: 2, 1: 2}, concurrency=2) is None
    assert Router().choose("a", {}, concurrency=2) is None


def test_a_restarted_worker_is_no_longer_home() -> None:
    router = Router()
    router.choose("a", {0: 0, 1: 1}, concurrency=64)
    router.forget(0)
    assert router.choose("a", {0: 1, 1: 0}, concurrency=64) == 1
