"""`Policy`: what one train rank holds of the policy, and everything a run asks of it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from megatron_trace.config import Config
from megatron_trace.learning.packing import plan_pass
from megatron_trace.learning.rows import Row
from megatron_trace.models.folders import hf_assets_dir, is_checkpoint
from megatron_trace.policy.distributed import start
from megatron_trace.policy.export import export
from megatron_trace.policy.freed_memory import UPDATES, give_back_freed_memory
from megatron_trace.policy.hf import TensorMeta, read_config
from megatron_trace.policy.manifest import DamagedCheckpoint, shared_verify
from megatron_trace.policy.packing import layout
from megatron_trace.policy.reference import Reference

Arrays = list[NDArray[np.float32]]


class Policy:
    """One train rank's part. Every method is collective, with the same arguments on all ranks."""

    def __init__(self, config: Config) -> None:
        """Join the other train ranks (torchrun's environment, or alone) and load `model.path`.

        Args:
            config: settings that `check.layout.check_layout` has accepted for this number of ranks.

        Raises:
            DamagedCheckpoint: `model.path` is a checkpoint, and a file is not what was written.
            ValueError: the folder does not hold the model that its config.json describes.
        """
        self.config = config
        self.parallel = start(config.parallel, config.run.seed)
        # These import Megatron-Core, which needs the CPU adapter that `start` installs.
        from megatron_trace.policy.checkpoint import CheckpointWriter, load_start
        from megatron_trace.policy.model import build_model
        from megatron_trace.policy.optimizer import Optimizer, wrap
        from megatron_trace.policy.train_step import TrainStep

        folder = Path(config.model.path)
        self._assets = hf_assets_dir(folder)
        chunks, self._weights = build_model(config, self.parallel)
        self._chunks = wrap(chunks, config)
        if is_checkpoint(folder):
            if problem := self.verify_checkpoint(folder):
                raise DamagedCheckpoint(problem)
            load_start(self._chunks, folder)
        # From here on the weights are the start policy's. The reference copies them, and the
        # optimizer makes its float32 weights from them.
        reference = Reference(self._chunks) if config.learning.loss.reference_kl else None
        self._optimizer = Optimizer(self._chunks, config.learning)
        self._checkpoint = CheckpointWriter(self._chunks, self._optimizer)
        self._layout = layout(config, read_config(self._assets), self.parallel)
        self._step = TrainStep(
            config, self.parallel, self._layout, self._chunks, self._optimizer, reference
        )

    def update(self, rows: Sequence[Row]) -> dict[str, float]:
        """One training step: `learning.batching.epochs` times over `rows`, each in
        `learning.batching.updates_per_step` updates. Then the predictor learns from the hidden
        states of the last epoch.

        Returns:
            metrics, the same on every rank: policy_loss, predictor_loss and prediction (the mean)
            before the predictor learns, gradient_norm (the policy's, the largest of the updates),
            learned_tokens, predicted_anchors, updates, path_tokens (of all rows, in all epochs),
            computed_tokens (padding included), padding (share of these), tree_reuse (path tokens
            over computed tokens without padding) and those of `learning.diagnostics.token_metrics`.

        Raises:
            ValueError: there are no rows, or one exceeds learning.batching.micro_batch_tokens.
            FloatingPointError: a gradient is not finite.
        """
        metrics = self._step.train_on(rows)
        if self.updates() % UPDATES == 0:
            give_back_freed_memory()
        return metrics

    def gradient(self, rows: Sequence[Row]) -> NDArray[np.float32]:
        """See `TrainStep.gradient`."""
        return self._step.gradient(rows)

    def logprobs(self, rows: Sequence[Row]) -> Arrays:
        """For every row the log-probability of its learned tokens [length]; 0 elsewhere."""
        return self._score(rows)[0]

    def predictions(self, rows: Sequence[Row]) -> Arrays:
        """The predicted success probability [length] at every anchor of every row; 0 elsewhere."""
        return self._score(rows)[1]

    def _score(self, rows: Sequence[Row]) -> tuple[Arrays, Arrays]:
        from megatron_trace.policy.scoring import score

        planned = plan_pass(rows, range(len(rows)), self._layout, backward=False)
        return score(self._chunks, rows, planned, self.parallel)

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """All weights as whole HF tensors, on every rank, in the order of `weight_metadata`.

        The predictor's tensors are among them, and lm_head.weight also where it is tied to the
        embedding. All ranks must use the iterator up, or the others wait for ever.
        """
        return self._weights.stream(with_tied_head=True, with_predictor=True)

    def weight_metadata(self) -> list[TensorMeta]:
        """Name, dtype and shape of what `weights` yields, element for element. Moves no data."""
        return self._weights.metadata(with_tied_head=True, with_predictor=True)

    def save_hf(self, path: Path) -> None:
        """Write the policy as an HF folder with tokenizer and predictor; it appears whole.

        Raises:
            OSError: on rank 0, which cannot write it; all ranks are through with it nevertheless.
        """
        export(self._weights, self._assets, path)

    def begin_checkpoint(self, folder: Path) -> str:
        """See `CheckpointWriter.begin`; training may continue."""
        return self._checkpoint.begin(folder)

    def finish_checkpoint(self, wait: bool) -> str | None:
        """See `CheckpointWriter.finish`."""
        return self._checkpoint.finish(wait=wait)

    def verify_checkpoint(self, folder: Path) -> str:
        """What is wrong with a checkpoint's files, or "". The ranks share the reading."""
        return shared_verify(folder)

    def load_checkpoint(self, folder: Path, updates: int) -> None:
        """Continue from a checkpoint that any layout wrote.

        Args:
            updates: optimizer updates done when it was written.
        """
        from megatron_trace.policy.checkpoint import load

        load(self._chunks, self._optimizer, folder, updates)

    def updates(self) -> int:
        """Optimizer updates done so far."""
        return self._optimizer.updates
