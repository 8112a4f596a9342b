"""The fleet: all rollout workers, as the training loop sees them."""

import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import ray
import torch

from megatron_trace.config import Config
from megatron_trace.rollout.pool import Job, WorkerPool
from megatron_trace.rollout.types import RolloutRequest, SampledRollout
from megatron_trace.rollout.weights import put_weights
from megatron_trace.rollout.worker import EnvironmentMaker, Worker
from megatron_trace.supervise import stacks
from megatron_trace.tree import Need, RolloutTree

OPEN_BATCH = 16
"""Tasks whose prompts one call of a worker scores."""

OBJECT_STORE_BYTES = 512 << 20
"""Object store of a Ray that is started here, where there is no GPU."""

VITAL = ("gcs_server", "raylet")
"""Processes without which a Ray cannot go on."""


RolloutJob = Job[RolloutRequest, SampledRollout]


class Fleet:
    """Ray actors with a vLLM engine each; survives the death of any of them.

    Attributes:
        events: what went wrong and what was done about it, in order.
        startup: seconds of each phase of every worker's last start.
    """

    def __init__(
        self,
        config: Config,
        model_path: str,
        environments: EnvironmentMaker | None = None,
        resync: Callable[[Any], None] | None = None,
        worker_class: type[Worker] = Worker,
        needs: frozenset[Need] = frozenset(),
    ) -> None:
        """Join or start Ray and start all workers in parallel, without waiting for them.

        Whatever needs a worker waits for it, so that the start hides behind other work. Policy version 0 is the HF
        folder's.

        Args:
            config: all settings.
            model_path: HF folder of the start policy, `predictor.safetensors` included where there is one.
            environments: makes, in each worker, the maker of episodes; None takes `config.environment`.
            resync: called with a restarted actor where weights travel by NCCL, to send them anew.
            worker_class: what the actors are.
            needs: what turns and trees carry beyond log-probabilities and predictions.
        """
        self._temp = start_ray(config)
        tensor_parallel = config.rollout.tensor_parallel
        gpu = _has_gpus(config)
        actor = ray.remote(worker_class).options(
            num_cpus=0 if gpu else 0.01,  # not on a Ray node that offers nothing
            num_gpus=tensor_parallel if gpu else 0,
            max_concurrency=2 * config.rollout.concurrency + 16,
            runtime_env=guarded_environment(config),
        )
        environments = environments or partial(configured_environments, config)
        self._dtype = getattr(torch, config.precision.rollout)
        self._pool = WorkerPool(
            create=lambda: actor.remote(config, model_path, environments, gpu, needs),
            size=config.rollout.workers,
            concurrency=config.rollout.concurrency,
            max_restarts=config.rollout.max_restarts,
            resync=resync,
        )
        self.events = self._pool.events
        self.startup = self._pool.startup

    @property
    def workers(self) -> list[Any]:
        """Handles of the actors that now serve."""
        return [slot.actor for slot in self._pool.slots]

    def wait(self) -> None:
        """Wait until all workers are ready."""
        self._pool.wait()

    def open_trees(self, tasks: Sequence[Mapping[str, Any]]) -> list[RolloutTree]:
        """Start an episode of every task: a tree of only its root, with its prediction, in the order of `tasks`."""
        batches = [
            list(tasks[first : first + OPEN_BATCH]) for first in range(0, len(tasks), OPEN_BATCH)
        ]
        roots = [
            root
            for batch in self._pool.run([Job(Worker.open_trees, batch) for batch in batches])
            for root in batch
        ]
        return [
            RolloutTree.from_prompt(
                dict(task),
                root.prompt_ids,
                prediction=root.prediction,
                state=root.state,
                embedding=root.embedding,
            )
            for task, root in zip(tasks, roots, strict=True)
        ]

    def sample(
        self,
        requests: Sequence[RolloutRequest],
        on_done: Callable[[int, SampledRollout], Iterable[RolloutRequest] | None] | None = None,
    ) -> list[SampledRollout]:
        """Sample a rollout for every request.

        Args:
            requests: rollouts to begin with; they are numbered in their order.
            on_done: `on_done(index, rollout)` is told each as it ends. Requests that it returns join those under way
                and get the next numbers.

        Returns:
            All rollouts, in the order of their numbers.
        """

        def more(index: int, rollout: SampledRollout) -> list[RolloutJob]:
            return _jobs(on_done(index, rollout) or ()) if on_done is not None else []

        return self._pool.run(_jobs(requests), more)

    def update_weights(self, weights: Iterable[tuple[str, torch.Tensor]], version: int) -> int:
        """Give all workers the weights of `version`, through Ray's object store.

        Args:
            weights: HF names and full tensors, `predictor.*` included.
            version: policy version of the tokens sampled from now on.

        Returns:
            The weights' fingerprint; every worker has checked that it received the same.
        """
        update = put_weights(weights, version, self._dtype)
        self._pool.update_weights(update)
        return update.fingerprint

    def take_events(self) -> list[str]:
        """What `events` holds, which is empty afterwards."""
        taken = list(self.events)
        self.events.clear()
        return taken

    def vital_processes(self) -> dict[str, int]:
        """Name -> pid of what must live, or waiting for the workers may never end: of a Ray that was started here."""
        return {one.name(): one.pid for one in psutil.Process().children() if one.name() in VITAL}

    def interrupt(self, reason: Exception) -> None:
        """Raise `reason` from the call that waits for the workers, or from the next. A signal handler may call it."""
        self._pool.interrupt(reason)

    def close(self) -> None:
        """Stop all workers, and the Ray that this fleet has started: none of their processes or files is left.

        Where a worker has died the logs stay, for they say why.
        """
        if self._temp is None or len(self.vital_processes()) == len(VITAL):
            self._pool.close()
        if self._temp is None:
            return
        ray.shutdown()
        if not self._pool.deaths:
            shutil.rmtree(self._temp, ignore_errors=True)
        for path in self._temp.rglob("*"):
            if path.is_socket():
                path.unlink()
        self._temp = None


def _jobs(requests: Iterable[RolloutRequest]) -> list[RolloutJob]:
    return [Job(Worker.rollout, request, request.tree) for request in requests]


def configured_environments(config: Config) -> Callable[[], Any]:
    """The maker of episodes that `config.environment` names."""
    from megatron_trace.envs import environment_factory

    settings = config.environment
    return environment_factory(
        settings.name, max_turns=settings.max_turns, **dict(settings.options)
    )


def _has_gpus(config: Config) -> bool:
    """Whether the engines run on GPUs: Ray has some.

    Raises:
        ValueError: it has fewer than the engines need, which would wait for them for ever.
    """
    found = int(ray.cluster_resources().get("GPU", 0))
    workers, each = config.rollout.workers, config.rollout.tensor_parallel
    if 0 < found < workers * each:
        raise ValueError(
            f"rollout.workers ({workers}) x rollout.tensor_parallel ({each}) need {workers * each} GPUs, and Ray has "
            f"{found}; lower one, or start Ray with more (--num-gpus)"
        )
    return found > 0


def start_ray(config: Config) -> Path | None:
    """Join `rollout.ray_address`, or start a quiet Ray on this machine; nothing where Ray already runs.

    Returns:
        The folder of the temporary files of a Ray that was started, those of its workers included; else None.
    """
    if ray.is_initialized():
        return None
    if config.rollout.ray_address is not None:
        with own_signals():
            ray.init(address=config.rollout.ray_address, logging_level=logging.WARNING)
        return None
    os.environ.setdefault(
        "RAY_worker_niceness", "0"
    )  # Ray's 15 starves the engines beside any other process
    store = {} if torch.cuda.is_available() else {"object_store_memory": OBJECT_STORE_BYTES}
    # Its own cluster's token is none of the user's business.
    logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(
        logging.ERROR
    )
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
    """Keep this program's SIGTERM handler, which Ray replaces by one that exits on the spot."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if handler is not signal.SIG_DFL:
            signal.signal(signal.SIGTERM, handler)


@contextmanager
def temporary_folder(path: str) -> Iterator[None]:
    """Where processes started meanwhile put their temporary files: vLLM leaves its own lying about."""
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = path
    try:
        yield
    finally:
        os.environ.pop("TMPDIR")
        if before is not None:
            os.environ["TMPDIR"] = before


def guarded_environment(config: Config) -> dict[str, Any] | None:
    """Ray's runtime environment by which a cluster's workers belong to this run; one started here inherits it."""
    if config.rollout.ray_address is None:
        return None
    return {"env_vars": {name: os.environ[name] for name in stacks.INHERITED if name in os.environ}}
