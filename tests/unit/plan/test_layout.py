"""Ranks stand where Megatron puts them."""

import pytest

from megatron_trace.config import SettingError
from megatron_trace.plan.build import _pretended
from megatron_trace.plan.layout import (
    Coordinates,
    Layout,
    check_engines,
    engine_places,
    smallest_world,
    train_gpus,
)
from megatron_trace.plan.machines import GPUS, Cluster


@pytest.mark.parametrize("rank", range(0, 32, 3))
def test_coordinates_are_megatrons(settings, rank) -> None:
    config = settings(
        *("parallel.tensor=2", "parallel.context=2", "parallel.pipeline=2"),
        *("parallel.expert=4", "parallel.expert_tensor=1"),
    )
    with _pretended(config, 32, rank) as place:
        theirs = Coordinates(place.tensor, place.context, place.data, place.pipeline, place.expert)
    assert Layout.of(config, 32).coordinates(rank) == theirs


def test_interleaved_stages_take_turns(settings) -> None:
    layout = Layout.of(settings("parallel.pipeline=2", "parallel.interleave=2"), 2)
    assert layout.layers(0, 8) == [range(0, 2), range(4, 6)]
    assert layout.layers(1, 8) == [range(2, 4), range(6, 8)]


def test_the_optimizer_is_sharded_over_data_and_context(settings) -> None:
    layout = Layout.of(
        settings(
            "parallel.tensor=2",
            "parallel.context=2",
            "parallel.expert=4",
            "parallel.expert_tensor=1",
        ),
        16,
    )
    assert (layout.data, layout.optimizer_shards, layout.expert_shards) == (4, 8, 4)


def test_the_fleet_takes_its_gpus_first(settings) -> None:
    cluster = Cluster(2, 8, GPUS["h100-80gb"])
    assert train_gpus(settings("rollout.workers=4", "rollout.tensor_parallel=2"), cluster) == 8
    with pytest.raises(SettingError, match=r"rollout\.workers = 16: .* leaves none to train"):
        train_gpus(settings("rollout.workers=16"), cluster)


def test_the_smallest_world_holds_dense_layers_and_experts(settings) -> None:
    assert smallest_world(settings("parallel.tensor=4", "parallel.pipeline=2")) == 8
    assert (
        smallest_world(
            settings("parallel.tensor=2", "parallel.expert=8", "parallel.expert_tensor=1")
        )
        == 8
    )
    assert smallest_world(settings("parallel.tensor=2", "parallel.expert=8")) == 16


def test_an_engine_stands_within_a_node(settings) -> None:
    wide = settings("rollout.workers=1", "rollout.tensor_parallel=8")
    check_engines(wide, Cluster(2, 8, GPUS["h100-80gb"]), 8)
    with pytest.raises(
        SettingError, match=r"rollout\.tensor_parallel = 8: is more than the 4 GPUs of a node"
    ):
        check_engines(wide, Cluster(4, 4, GPUS["h100-80gb"]), 8)
    with pytest.raises(SettingError, match=r"rollout\.workers = 3: .* whole places for 2 engines"):
        check_engines(
            settings("rollout.workers=3", "rollout.tensor_parallel=4"),
            Cluster(3, 6, GPUS["h100-80gb"]),
            6,
        )


def test_places_for_engines_are_whole_on_every_node() -> None:
    # The first node has 2 GPUs left, too few for an engine of 4.
    assert engine_places(4, Cluster(2, 8, GPUS["h100-80gb"]), 6) == 2
    assert engine_places(2, Cluster(2, 8, GPUS["h100-80gb"]), 6) == 5


@pytest.mark.parametrize(
    ("tensor", "each", "crosses"), [(8, 8, False), (16, 8, True), (4, 6, True), (2, 6, False)]
)
def test_tensor_parallel_neighbours_may_stand_on_two_nodes(settings, tensor, each, crosses) -> None:
    assert (
        Layout.of(settings(f"parallel.tensor={tensor}"), 16).tensor_crosses_nodes(each) is crosses
    )
