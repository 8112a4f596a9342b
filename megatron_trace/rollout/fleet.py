"""The fleet: all rollout workers, as the training loop sees them."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import ray
from ray.actor import ActorHandle

from megatron_trace.config import Config
from megatron_trace.envs import make_environments
from megatron_trace.rollout.backends import make_weight_sync, start_engine
from megatron_trace.rollout.failures import Failure
from megatron_trace.rollout.jobs import Job
from megatron_trace.rollout.pool import WorkerPool
from megatron_trace.rollout.ray_cluster import RayCluster, has_gpus, runtime_environment
from megatron_trace.rollout.types import RolloutRequest, SampledRollout, ScoredRoot
from megatron_trace.rollout.weight_sync import PolicyWeights
from megatron_trace.rollout.worker import EnvironmentMaker, Worker
from megatron_trace.tree import Requires, RolloutTree

ROOT_BATCH = 16
"""Tasks whose prompts one call of a worker scores."""

RolloutJob = Job[RolloutRequest, SampledRollout]


class Fleet:
    """Ray actors with an inference engine each; survives the death of any of them.

    Attributes:
        events: what went wrong and what was done about it, in order.
        startup: seconds of each phase of every worker's last start.
    """

    def __init__(
        self,
        config: Config,
        model_path: str,
        environments: EnvironmentMaker | None = None,
        worker_class: type[Worker] = Worker,
        requires: frozenset[Requires] = frozenset(),
    ) -> None:
        """Join or start Ray and start all workers in parallel, without waiting for them.

        Whatever needs a worker waits for it, so that the start hides behind other work. Policy
        version 0 is the HF folder's, until `update_weights` is called.

        Args:
            config: all settings.
            model_path: HF folder of the start policy, with the predictor's file if there is one.
            environments: makes, in each worker, the maker of episodes; None takes
                `config.environment`.
            worker_class: what the actors are.
            requires: what turns and trees carry beyond log-probabilities and predictions.

        Raises:
            SettingError: Ray cannot be joined, or lacks the GPUs that the engines need.
        """
        self._cluster = RayCluster(config)
        environments = environments or partial(make_environments, config.environment)
        gpu = has_gpus(config)
        actor = _actor_class(config, worker_class, gpu)
        self._pool = WorkerPool(
            create=lambda: actor.remote(
                config, model_path, start_engine, environments, gpu, requires, os.getcwd()
            ),
            size=config.rollout.workers,
            concurrency=config.rollout.concurrency,
            max_restarts=config.rollout.max_restarts,
            weight_sync=make_weight_sync(config),
        )
        self.events = self._pool.events
        self.startup = self._pool.startup

    @property
    def workers(self) -> list[ActorHandle]:
        """The actors that serve now."""
        return [slot.actor for slot in self._pool.slots]

    def wait(self) -> None:
        """Wait until all workers are ready."""
        self._pool.wait()

    def open_trees(self, tasks: Sequence[Mapping[str, Any]]) -> list[RolloutTree | Failure]:
        """Start an episode of every task.

        Returns:
            For each of `tasks`, in their order, a tree of only its root, with its prediction; where
            no episode could begin, why.
        """
        starts = range(0, len(tasks), ROOT_BATCH)
        batches = [tasks[first : first + ROOT_BATCH] for first in starts]
        scored = self._pool.run([Job(Worker.open_trees, batch) for batch in batches])
        roots = [root for batch in scored for root in batch]
        return [_tree(task, root) for task, root in zip(tasks, roots, strict=True)]

    def sample(
        self,
        requests: Sequence[RolloutRequest],
        on_done: Callable[[int, SampledRollout], Iterable[RolloutRequest] | None] | None = None,
    ) -> list[SampledRollout]:
        """Sample a rollout for every request.

        Args:
            requests: rollouts to begin with; they are numbered in their order.
            on_done: callback `on_done(index, rollout)`, called when a rollout ends. Requests that
                it returns join those under way and get the next numbers.

        Returns:
            All rollouts, in the order of their numbers.
        """

        def more(index: int, rollout: SampledRollout) -> list[RolloutJob]:
            return _jobs(on_done(index, rollout) or ()) if on_done is not None else []

        return self._pool.run(_jobs(requests), more)

    def update_weights(self, weights: PolicyWeights, version: int) -> None:
        """Bring all workers to the policy's weights as they are now.

        Args:
            weights: where the weights come from.
            version: policy version of the tokens sampled from now on.

        Raises:
            RuntimeError: a worker holds other weights than were sent.
        """
        self._pool.update_weights(weights, version)

    def take_events(self) -> list[str]:
        """What `events` holds, which is empty afterwards."""
        taken = list(self.events)
        self.events.clear()
        return taken

    def vital_processes(self) -> dict[str, int]:
        """Name -> process id of what must live; see `RayCluster.vital_processes`."""
        return self._cluster.vital_processes()

    def interrupt(self, reason: Exception) -> None:
        """Raise `reason` from the wait for workers under way, or from the next.

        A signal handler may call it.
        """
        self._pool.interrupt(reason)

    def close(self) -> None:
        """Stop all workers, and the Ray that this fleet has started; wait until they have ended.

        If a worker has died, Ray's logs stay: they say why.
        """
        started = self._cluster.processes()
        # Without its vital processes Ray answers no call, and closing the pool would never end.
        if self._cluster.serves():
            self._pool.close()
        self._cluster.close(keep_logs=self._pool.deaths > 0, started=started)


def _actor_class(config: Config, worker_class: type[Worker], gpu: bool) -> Any:
    """`worker_class` as Ray's remote class, with what an actor takes of the machine."""
    return ray.remote(worker_class).options(
        # Without GPUs a little of a CPU: no actor then lands on a Ray node that offers nothing.
        num_cpus=0 if gpu else 0.01,
        num_gpus=config.rollout.tensor_parallel if gpu else 0,
        # Calls beside the rollouts, such as new weights, must not wait for the rollouts to end.
        max_concurrency=2 * config.rollout.concurrency + 16,
        runtime_env=runtime_environment(config),
    )


def _jobs(requests: Iterable[RolloutRequest]) -> list[RolloutJob]:
    return [Job(Worker.rollout, request, request.tree) for request in requests]


def _tree(task: Mapping[str, Any], root: ScoredRoot | Failure) -> RolloutTree | Failure:
    if isinstance(root, Failure):
        return root
    return RolloutTree.from_prompt(
        dict(task),
        root.prompt_ids,
        prediction=root.prediction,
        state=root.state,
        embedding=root.embedding,
    )
