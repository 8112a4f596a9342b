"""The train ranks as the loop sees them: they learn from trees and push weights to the fleet."""

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

from torch import Tensor

from megatron_trace.allocation import advantage_settings
from megatron_trace.check.space import OPTIMIZER_BYTES
from megatron_trace.config import Config
from megatron_trace.learning import rows_from_trees
from megatron_trace.policy.hf import TensorMeta
from megatron_trace.policy.policy import Policy
from megatron_trace.policy.ranks import RankGroup
from megatron_trace.rollout.fleet import Fleet
from megatron_trace.tree import RolloutTree


class Trainer:
    """Lives on rank 0, whose calls the other train ranks repeat.

    It is the `PolicyWeights` of weight sync.
    """

    def __init__(self, config: Config, ranks: RankGroup) -> None:
        """`ranks` are the train ranks, ready to be called."""
        self._advantage = advantage_settings(config.allocation, config.learning.advantage)
        self._longest = config.rollout.max_history_tokens
        self._ranks = ranks

    def learn(self, trees: Sequence[RolloutTree]) -> dict[str, float]:
        """One training step: backup, predictor targets, tree-aware advantages, update.

        Returns:
            The step's metrics; see `Policy.update`.
        """
        # Only rank 0 has the trees. Every rank gets all rows, and takes its share of them itself:
        # how they are split depends on the parallel layout.
        rows = rows_from_trees(trees, self._advantage, longest=self._longest)
        return self._ranks.call(Policy.update, rows)

    def save(self, folder: Path) -> None:
        """Write the policy and its predictor as a HF folder.

        Raises:
            OSError: it cannot be written. The ranks can be called as before.
        """
        self._ranks.call(Policy.save_hf, folder)

    def updates(self) -> int:
        """Optimizer updates done so far."""
        return self._ranks.call(Policy.updates)

    @cached_property
    def checkpoint_bytes(self) -> int:
        """About what a checkpoint takes on disk: weights and optimizer state."""
        total = 0
        for _, dtype, shape in self.weight_metadata():
            total += math.prod(shape) * (dtype.itemsize + OPTIMIZER_BYTES)
        return total

    def at_rest(self) -> bool:
        """Whether all ranks can be called: after an error, whether they had no part in it."""
        return self._ranks.come_to_rest()

    def begin_checkpoint(self, folder: Path) -> str:
        """Copy all weights and moments and start writing them to the existing `folder`.

        Returns:
            what went wrong, or "".
        """
        return self._ranks.call(Policy.begin_checkpoint, folder)

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
        """Bring every worker to policy and predictor as they are now, as `version`.

        Raises:
            RuntimeError: a worker holds other weights than were sent.
        """
        fleet.update_weights(self, version)

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """See `rollout.weight_sync.PolicyWeights`."""
        return self._ranks.call(Policy.weights)

    def weight_metadata(self) -> list[TensorMeta]:
        """See `rollout.weight_sync.PolicyWeights`."""
        return self._ranks.call(Policy.weight_metadata)
