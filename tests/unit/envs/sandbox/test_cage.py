"""The layers of the sandbox one by one, as the kernel tells them of a process that is in it.

Each holds by itself: the escapes in `test_escapes.py` fail at the first of them already.
"""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from megatron_trace.envs.sandbox import Sandbox

WAIT = "import time; time.sleep(5)"


@pytest.fixture(scope="module")
def process(sandbox: Sandbox) -> Iterator[Path]:
    """/proc/PID of a call's process while it waits."""
    call = threading.Thread(target=sandbox.run, args=(WAIT,))
    call.start()
    server = sandbox._running().process.pid
    yield _innermost(server)
    call.join()


def _innermost(server: int) -> Path:
    """Of bubblewrap, server and process the last, once it is locked in."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        line = psutil.Process(server).children(recursive=True)
        if len(line) == 2:
            folder = Path("/proc", str(line[-1].pid))
            if "Seccomp:\t2" in (folder / "status").read_text():
                return folder
        time.sleep(0.01)
    raise TimeoutError


def _status(process: Path) -> dict[str, str]:
    lines = (process / "status").read_text().splitlines()
    return dict(line.replace(" ", "").split(":\t", 1) for line in lines if ":\t" in line)


@pytest.mark.parametrize("kind", ["user", "pid", "net", "ipc", "uts", "cgroup", "mnt"])
def test_no_namespace_is_the_machines(process: Path, kind: str) -> None:
    assert os.readlink(process / "ns" / kind) != os.readlink(f"/proc/self/ns/{kind}")


@pytest.mark.parametrize("kind", ["pid", "ipc", "mnt"])
def test_these_namespaces_are_the_calls_own(process: Path, kind: str) -> None:
    server = psutil.Process(int(process.name)).parents()[0].pid
    assert os.readlink(process / "ns" / kind) != os.readlink(f"/proc/{server}/ns/{kind}")


def test_it_has_no_capability_and_gets_none(process: Path) -> None:
    status = _status(process)
    assert {status[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Amb")} == {"0" * 16}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def test_it_is_the_first_of_its_processes(process: Path) -> None:
    assert _status(process)["NSpid"].split("\t")[-1] == "1"


def test_it_holds_three_descriptors(process: Path) -> None:
    opened = {int(path.name): os.readlink(path) for path in (process / "fd").iterdir()}
    assert sorted(opened) == [0, 1, 2] and opened[0] == "/dev/null"
    assert opened[1].startswith("pipe:") and opened[2].startswith("pipe:")


def test_all_mounts_are_read_only_but_its_folder(process: Path) -> None:
    mounts = [line.split() for line in (process / "mountinfo").read_text().splitlines()]
    options = {mount[4]: mount[5].split(",") for mount in mounts}
    assert [place for place, words in options.items() if "rw" in words] == ["/scratch"]
    assert {"nosuid", "nodev", "noexec"} <= set(options["/scratch"])
    assert not {"/proc", "/sys", "/dev/shm", "/tmp"} & set(options)
    assert not [mount for mount in mounts if "shared:" in " ".join(mount)]


def test_its_network_has_no_way_out(process: Path) -> None:
    devices = (process / "net/dev").read_text().splitlines()[2:]
    assert [line.split(":")[0].strip() for line in devices] == ["lo"]


def test_its_session_is_not_the_workers(process: Path) -> None:
    assert os.getsid(int(process.name)) != os.getsid(0)


def test_of_calls_beside_it_it_holds_nothing(sandbox: Sandbox) -> None:
    beside = [threading.Thread(target=sandbox.run, args=(WAIT,)) for _ in range(3)]
    for call in beside:
        call.start()
    server = psutil.Process(sandbox._running().process.pid)
    while len(server.children(recursive=True)) < 1 + len(beside):
        time.sleep(0.01)
    code = (
        "import os\nfor fd in range(64):\n    try: os.fstat(fd); print(fd)\n    except OSError: 0"
    )
    outcome = sandbox.run(f"{code}\nprint('number', os.getpid())")
    for call in beside:
        call.join()
    assert outcome.stdout.split() == ["0", "1", "2", "number", "1"]
