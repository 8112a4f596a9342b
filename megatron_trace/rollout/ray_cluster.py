"""The Ray that the fleet lives on: joined where `rollout.ray_address` says, or started here."""

import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import ray
import torch

from megatron_trace.config import Config
from megatron_trace.supervise import stacks

OBJECT_STORE_BYTES = 512 << 20
"""Size of the object store of a Ray that is started here on a machine without GPUs."""

VITAL_PROCESSES = ("gcs_server", "raylet")
"""Processes without which a Ray serves nobody."""


class RayCluster:
    """A Ray that this process is connected to.

    Attributes:
        temp: folder of all temporary files of a Ray that was started here; None for another Ray.
    """

    def __init__(self, config: Config) -> None:
        """Join `rollout.ray_address`, or start a quiet Ray; nothing if this process has one."""
        self.temp: Path | None = None
        if ray.is_initialized():
            return
        if config.rollout.ray_address is None:
            self.temp = start_ray()
            return
        with own_signals():
            ray.init(address=config.rollout.ray_address, logging_level=logging.WARNING)

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

    def close(self, *, keep_logs: bool) -> None:
        """Stop a Ray that was started here. Nothing of it is left, except the logs if wanted."""
        if self.temp is None:
            return
        ray.shutdown()
        if not keep_logs:
            shutil.rmtree(self.temp, ignore_errors=True)
        # With `keep_logs` the folder stays, and in it the sockets, which nobody answers any more.
        for path in self.temp.rglob("*"):
            if path.is_socket():
                path.unlink()
        self.temp = None


def start_ray() -> Path:
    """Start a Ray on this machine.

    Returns:
        The folder of its temporary files and of those of its workers.
    """
    # Ray would start its workers at niceness 15, where any other process starves the engines.
    os.environ.setdefault("RAY_worker_niceness", "0")
    store = {} if torch.cuda.is_available() else {"object_store_memory": OBJECT_STORE_BYTES}
    # It tells of the token that guards the cluster, which nobody else will ever join.
    token_logger = logging.getLogger("ray._private.authentication.authentication_token_setup")
    token_logger.setLevel(logging.ERROR)
    temp = tempfile.mkdtemp(prefix="ray_")
    with own_signals(), temporary_folder(temp):
        ray.init(
            address="local",
            include_dashboard=False,
            logging_level=logging.WARNING,
            log_to_driver=False,
            _temp_dir=temp,
            **store,
        )
    return Path(temp)


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
    """Whether the engines run on GPUs: Ray has some.

    Raises:
        ValueError: Ray has fewer than the engines need; the actors would never start.
    """
    found = int(ray.cluster_resources().get("GPU", 0))
    workers, each = config.rollout.workers, config.rollout.tensor_parallel
    if 0 < found < workers * each:
        raise ValueError(
            f"rollout.workers ({workers}) x rollout.tensor_parallel ({each}) need "
            f"{workers * each} GPUs, and Ray has {found}; lower one, or start Ray with more "
            "(--num-gpus)"
        )
    return found > 0


def runtime_environment(config: Config) -> dict[str, Any] | None:
    """Ray's runtime environment of the actors.

    By these variables a guard finds this run's processes. A Ray that was started here has them in
    its own environment already.
    """
    if config.rollout.ray_address is None:
        return None
    inherited = {name: os.environ[name] for name in stacks.INHERITED if name in os.environ}
    return {"env_vars": inherited}
