"""Shared by all tests: how hypothesis runs here, and which tests stay in one process."""

import os

import pytest
from hypothesis import settings

# Before torch is imported: the two processes of `make test` would otherwise fight for the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Machines differ in speed; no deadline and fixed seeds make runs repeatable.
settings.register_profile("house", deadline=None, derandomize=True)
settings.load_profile("house")

SHARED_RUNS = {"trained", "replayed", "killed"}
"""Fixtures that start the whole program once, for tests of several files."""


# First, because pytest-xdist reads the marks in a hook of the same name.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of one file, and all tests on the shared runs, in one process.

    `make test` spreads the tests over two processes. Each of them would otherwise start the same
    program for its share of the tests.
    """
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        group = "shared runs" if fixtures & SHARED_RUNS else item.nodeid.split("::")[0]
        item.add_marker(pytest.mark.xdist_group(group))
