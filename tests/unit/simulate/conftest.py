"""A small world that most tests look at."""

import pytest

from megatron_trace.simulate import World, WorldConfig, make_world

SMALL = WorldConfig(tasks=24, depth=4, early=0.2, skills=2, bands=2)


@pytest.fixture(scope="session")
def world() -> World:
    return make_world(SMALL)
