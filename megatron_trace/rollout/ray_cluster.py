"""The Ray that the fleet lives on: joined where `rollout.ray_address` says, or started here."""

import logging
import os
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import ray
import torch
from psutil import Process
from ray._private import ray_constants
from ray._private.authentication.authentication_token_setup import (
    maybe_enable_token_auth_if_token_available as use_token_if_there_is_one,
)
from ray.exceptions import AuthenticationError

from megatron_trace.config import Config, SettingError, WeightBackend
from megatron_trace.supervise import stacks
from megatron_trace.supervise.leftovers import end_all, lives

logger = logging.getLogger(__name__)

OBJECT_STORE_BYTES = 512 << 20
"""Size of the object store of a Ray that is started here on a machine without GPUs."""

VITAL_PROCESSES = ("gcs_server", "raylet")
"""Processes without which a Ray serves nobody."""

JOIN_S = 120.0
"""How long the nodes of the fleet may take to join a Ray that was started elsewhere."""

END_GRACE_S = 5.0
"""How long Ray's processes may take to end before they are killed."""


class RayCluster:
    """A Ray that this process is connected to.

    Attributes:
        temp: folder of all temporary files of a Ray that was started here; None for another Ray.
    """

    def __init__(self, config: Config) -> None:
        """Join `rollout.ray_address`, or start a quiet Ray; nothing if this process has one.

        Raises:
            SettingError: Ray cannot be joined.
        """
        self.temp: Path | None = None
        if ray.is_initialized():
            return
        if config.rollout.ray_address is None:
            self.temp = start_ray()
            return
        join_ray(config.rollout.ray_address)

    def vital_processes(self) -> dict[str, int]:
        """Name -> process id of what must live, of a Ray that was started here.

        If one of them dies, waiting for a worker may never end.
        """
        # Ray starts them as children of this process; those of a cluster elsewhere are not.
        children = psutil.Process().children()
        return {child.name(): child.pid for child in children if child.name() in VITAL_PROCESSES}

    def serves(self) -> bool:
        """Whether calls can be expected to end."""
        return self.temp is None or len(self.vital_processes()) == len(VITAL_PROCESSES)

    def processes(self) -> set[Process]:
        """All processes of a Ray that was started here: its services, its workers, their engines."""
        if self.temp is None:
            return set()
        found = set()
        for child in Process().children():
            # A child may end at any moment.
            with suppress(psutil.NoSuchProcess):
                # Linux may say for a while that a command line is empty, so names count as well.
                if child.name() in VITAL_PROCESSES or str(self.temp) in " ".join(child.cmdline()):
                    found |= {child, *child.children(recursive=True)}
        return found

    def close(self, *, keep_logs: bool, started: set[Process]) -> None:
        """Stop a Ray that was started here. Nothing of it is left, except the logs if wanted.

        Args:
            keep_logs: whether its folder of logs stays.
            started: its processes, as `processes` found them before the first one was stopped. An
                engine whose actor has been killed is no descendant of this process any more.
        """
        if self.temp is None:
            return
        started = started | self.processes()
        ray.shutdown()
        # Ray tells its processes to end and does not wait for them.
        end_all(lambda: {process for process in started if lives(process)}, grace_s=END_GRACE_S)
        if not keep_logs:
            shutil.rmtree(self.temp, ignore_errors=True)
        # With `keep_logs` the folder stays, and in it the sockets, which nobody answers any more.
        for path in self.temp.rglob("*"):
            if path.is_socket():
                path.unlink()
        self.temp = None


def join_ray(address: str) -> None:
    """Join the Ray at `address`.

    Raises:
        SettingError: none answers there, or it does not let us in.
    """
    _hush_token()
    # `ray start --head` takes the token of ~/.ray by itself. A program that is given an address does
    # not, and would be turned away. A Ray without a token does not mind one.
    use_token_if_there_is_one(warn_if_disabled=False)
    try:
        with own_signals():
            ray.init(address=address, logging_level=logging.WARNING)
    except (AuthenticationError, OSError, RuntimeError) as error:
        # Ray's first sentence says why; many about its website may follow.
        reason = str(error).strip().split("\n")[0].split(". ")[0]
        remedy = (
            f"cannot be joined ({reason}); start Ray on this machine too, and give all its nodes "
            "the same token (docs/gpu.md)"
        )
        raise SettingError("rollout.ray_address", address, remedy) from error


def start_ray() -> Path:
    """Start a Ray on this machine.

    Returns:
        The folder of its temporary files and of those of its workers.
    """
    # Ray would start its workers at niceness 15, where any other process starves the engines.
    os.environ.setdefault("RAY_worker_niceness", "0")
    store = {} if torch.cuda.is_available() else {"object_store_memory": OBJECT_STORE_BYTES}
    _hush_token()
    own_token(os.environ)
    temp = tempfile.mkdtemp(prefix="ray_")
    with own_signals(), temporary_folder(temp), loopback_only():
        ray.init(
            address="local",
            include_dashboard=False,
            logging_level=logging.WARNING,
            log_to_driver=False,
            _temp_dir=temp,
            **store,
        )
    return Path(temp)


def own_token(environment: MutableMapping[str, str]) -> None:
    """Guard a Ray that is started here with a token that only this process and its children know.

    Ray itself would write one into the home folder, where others may read it.
    """
    if not environment.keys() & {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}:
        environment["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


@contextmanager
def loopback_only() -> Iterator[None]:
    """A Ray that is started meanwhile listens on 127.0.0.1 alone, with all its processes.

    So Ray does by itself on macOS and Windows, and says so in this variable; elsewhere it takes the
    address of the network, and listens on all interfaces.
    """
    name, before = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, ray_constants.ENABLE_RAY_CLUSTER
    os.environ[name], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        os.environ.pop(name)
        ray_constants.ENABLE_RAY_CLUSTER = before


def _hush_token() -> None:
    """Ray warns that a token guards the cluster, which is as it should be."""
    token_logger = logging.getLogger("ray._private.authentication.authentication_token_setup")
    token_logger.setLevel(logging.ERROR)


@contextmanager
def own_signals() -> Iterator[None]:
    """Keep this program's SIGTERM handler, which Ray replaces by one that exits at once."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if handler is not signal.SIG_DFL:
            signal.signal(signal.SIGTERM, handler)


@contextmanager
def temporary_folder(path: str) -> Iterator[None]:
    """Processes that are started meanwhile put their temporary files here: engines leave some."""
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = path
    try:
        yield
    finally:
        os.environ.pop("TMPDIR")
        if before is not None:
            os.environ["TMPDIR"] = before


def has_gpus(config: Config) -> bool:
    """Whether the engines run on GPUs. Waits for nodes that are still joining Ray.

    Raises:
        SettingError: Ray has fewer GPUs than the engines need; the actors would never start.
    """
    workers, each = config.rollout.workers, config.rollout.tensor_parallel
    needed, found = workers * each, _gpus()
    # Where the trainer has GPUs, vLLM was built for CUDA and starts on no CPU.
    must = config.rollout.weight_backend is WeightBackend.nccl or torch.cuda.is_available()
    if found >= needed or not (found or must):
        return found > 0
    # A Ray that was started here has all it will ever have.
    if config.rollout.ray_address is not None:
        logger.warning(f"Ray has {found} of {needed} GPUs; waiting for the others to join")
        found = _wait_for_gpus(needed)
    if found < needed:
        remedy = (
            f"x rollout.tensor_parallel ({each}) needs {needed} GPUs, and Ray has {found}; lower "
            "one, or start Ray with more (--num-gpus)"
        )
        raise SettingError("rollout.workers", workers, remedy)
    return True


def _wait_for_gpus(needed: int) -> int:
    """GPUs that Ray has after `JOIN_S`, or as soon as it has `needed`."""
    deadline = time.monotonic() + JOIN_S
    while (found := _gpus()) < needed and time.monotonic() < deadline:
        time.sleep(1.0)
    return found


def _gpus() -> int:
    return int(ray.cluster_resources().get("GPU", 0))


def runtime_environment(config: Config) -> dict[str, Any] | None:
    """Ray's runtime environment of the actors.

    By these variables a guard finds this run's processes. A Ray that was started here has them in
    its own environment already.
    """
    if config.rollout.ray_address is None:
        return None
    inherited = {name: os.environ[name] for name in stacks.INHERITED if name in os.environ}
    return {"env_vars": inherited}
