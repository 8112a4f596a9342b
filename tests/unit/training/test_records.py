"""A step's row says which sources its tasks are of."""

from megatron_trace.config import DataConfig
from megatron_trace.training.records import source_shares
from megatron_trace.tree import RolloutTree


def tree(task_id: str | int) -> RolloutTree:
    return RolloutTree.from_prompt({"id": task_id}, [1], prediction=0.5, state={})


def test_the_share_of_every_source_is_told() -> None:
    data = DataConfig(train={"a": "a.tar", "a b": "b.tar", "none": "c.tar"})
    trees = [tree("a/1"), tree("a/2"), tree("a/3"), tree("a b/a/1")]
    assert source_shares(data, trees) == {"tasks/a": 0.75, "tasks/a b": 0.25, "tasks/none": 0.0}
    assert source_shares(data, []) == {}


def test_files_without_a_name_have_no_share() -> None:
    assert source_shares(DataConfig(train="a.tar"), [tree("a/1"), tree(2)]) == {}
