"""The train ranks as the loop sees them: they learn from trees and push their weights to the fleet."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from megatron_trace.allocation import strategy_class
from megatron_trace.config import Config, WeightBackend
from megatron_trace.learning import rows_from_trees
from megatron_trace.policy.policy import Policy
from megatron_trace.policy.ranks import RankGroup
from megatron_trace.rollout.fleet import Fleet
from megatron_trace.tree import RolloutTree


class Trainer:
    """Lives on rank 0, whose calls the other train ranks follow."""

    def __init__(self, config: Config, ranks: RankGroup) -> None:
        """`ranks` are the train ranks, ready to be called."""
        self._nccl = config.rollout.weight_backend is WeightBackend.nccl
        self._tensor_parallel = config.rollout.tensor_parallel
        advantage = (
            config.learning.advantage or strategy_class(config.allocation.strategy).advantage
        )
        self._learning = replace(config.learning, advantage=advantage)
        self._longest = config.rollout.max_history_tokens
        self._ranks = ranks
        self._version = 0
        self._sender: Any = None
        self._receivers: list[Any] = []

    def learn(self, trees: Sequence[RolloutTree]) -> dict[str, float]:
        """One training step: backup, predictor targets, tree-aware advantages, update. Returns its metrics."""
        return self._ranks.call(
            Policy.update, rows_from_trees(trees, self._learning, longest=self._longest)
        )

    def save(self, folder: Path) -> None:
        """Write the policy and its predictor as a HF folder."""
        self._ranks.call(Policy.save_hf, folder)

    def updates(self) -> int:
        """Optimizer updates done so far."""
        return self._ranks.call(Policy.updates)

    @cached_property
    def checkpoint_bytes(self) -> int:
        """About what a checkpoint takes: the weights, and the optimizer's float32 weights and two moments."""
        tensors = self._ranks.call(Policy.weight_metadata)
        return sum(math.prod(shape) * (dtype.itemsize + 12) for _, dtype, shape in tensors)

    def begin_checkpoint(self, folder: Path) -> None:
        """Copy all weights and moments and start writing them to the existing `folder`."""
        self._ranks.call(Policy.begin_checkpoint, folder)

    def finish_checkpoint(self, wait: bool) -> str | None:
        """None while the checkpoint is being written, "" when it is complete, or what went wrong."""
        return self._ranks.call(Policy.finish_checkpoint, wait)

    def verify_checkpoint(self, folder: Path) -> str:
        """What is wrong with a checkpoint's files, or ""."""
        return self._ranks.call(Policy.verify_checkpoint, folder)

    def load_checkpoint(self, folder: Path, updates: int) -> None:
        """Take weights and moments from a checkpoint of `updates` optimizer updates."""
        self._ranks.call(Policy.load_checkpoint, folder, updates)

    def push(self, fleet: Fleet, version: int) -> None:
        """Send policy and predictor to every worker as `version`, by the backend of `rollout.weight_backend`.

        Raises:
            RuntimeError: a worker holds other weights than were sent.
        """
        self._version = version
        if not self._nccl:
            fleet.update_weights(self._ranks.call(Policy.weights), version)
            return
        if self._receivers != fleet.workers:  # a restarted worker is in no group
            if self._sender is not None:
                self._sender.close()
            self._receivers = fleet.workers
            self._sender = self._join(self._receivers)
        self._sender.send(version)

    def resync(self, worker: Any) -> None:
        """Bring one restarted worker to the current version; the object store needs no help with that."""
        if self._nccl:
            sender = self._join([worker])
            sender.send(self._version)
            sender.close()

    def _join(self, workers: list[Any]) -> Any:
        from megatron_trace.rollout.vllm.nccl import MegatronWeightSource, NCCLSender

        source = MegatronWeightSource(
            self._ranks.call(Policy.weight_metadata), lambda: self._ranks.call(Policy.weights)
        )
        return NCCLSender(workers, self._tensor_parallel, source, rank=0)
