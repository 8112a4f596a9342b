"""`Policy`: what one train rank holds of the policy, and everything a run asks of it."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed

from megatron_trace.config import Config
from megatron_trace.learning.aggregation import row_weights, teaches_policy
from megatron_trace.learning.batches import Batch, make_batch
from megatron_trace.learning.diagnostics import token_metrics
from megatron_trace.learning.packing import longest_micro_batch, plan_micro_batches, split_updates
from megatron_trace.learning.rows import Row
from megatron_trace.learning.schedule import learning_rate_factor
from megatron_trace.models.folders import hf_assets_dir, is_checkpoint
from megatron_trace.policy.anchors import states_in_order, targets
from megatron_trace.policy.distributed import start
from megatron_trace.policy.hf import TensorMeta, read_config
from megatron_trace.policy.hf_writer import write_folder
from megatron_trace.policy.manifest import DamagedCheckpoint, verify
from megatron_trace.policy.packing import packing
from megatron_trace.policy.reference import Reference
from megatron_trace.policy.weights import drain

Arrays = list[NDArray[np.float32]]
Seen = tuple[Batch, Tensor]
"""A micro-batch and the final hidden states at its anchors, [m, hidden]."""


class Policy:
    """One train rank's part. Every method is collective: all train ranks call it with the same arguments."""

    def __init__(self, config: Config) -> None:
        """Join the other train ranks (torchrun's environment, or alone) and load `model.path`.

        Args:
            config: settings that `check.layout.check_layout` has accepted for this number of ranks.

        Raises:
            DamagedCheckpoint: `model.path` is a checkpoint, and a file is not what was written.
            ValueError: the folder does not hold the model that its config.json describes.
        """
        folder = Path(config.model.path)
        hf = read_config(hf_assets_dir(folder))
        self.config = config
        self.parallel = start(config.parallel, config.run.seed)
        # These import Megatron-Core, which needs the CPU adapter that `start` installs.
        from megatron_trace.policy.checkpoint import CheckpointWriter, load_start
        from megatron_trace.policy.model import build_model
        from megatron_trace.policy.optimizer import Optimizer, wrap

        chunks, self._weights = build_model(config, self.parallel)
        self._chunks = wrap(chunks, config)
        if is_checkpoint(folder):
            if problem := self.verify_checkpoint(folder):
                raise DamagedCheckpoint(problem)
            load_start(self._chunks, folder)
        self._reference = Reference(self._chunks) if config.learning.loss.reference_kl else None
        self._optimizer = Optimizer(self._chunks, config.learning)
        self._checkpoint = CheckpointWriter(self._chunks, self._optimizer)
        self._packing = packing(config, hf)

    def update(self, rows: Sequence[Row]) -> dict[str, float]:
        """One training step: `learning.batching.epochs` passes over `rows`, each in
        `learning.batching.updates_per_step` updates; then the
        predictor learns from the hidden states of the last time.

        Returns:
            metrics, the same on every rank: policy_loss, predictor_loss and prediction (the mean) before the predictor
            learns, gradient_norm (the policy's, the largest of the updates), learned_tokens, predicted_anchors,
            updates, padding (share of the computed tokens) and those of `learning.diagnostics.token_metrics`.

        Raises:
            ValueError: there are no rows, or one exceeds learning.batching.micro_batch_tokens.
            FloatingPointError: a gradient is not finite.
        """
        if not rows:
            raise ValueError("a training step needs at least one row")
        learning = self.config.learning
        generator = np.random.default_rng([self.config.run.seed, self._optimizer.updates])
        old = (
            self.logprobs(rows)
            if learning.batching.updates_per_step * learning.batching.epochs > 1
            else None
        )
        reference = self._reference_logprobs(rows)
        norms, sums = [], []
        for _ in range(learning.batching.epochs):
            seen: list[Seen] = []
            for selected in split_updates(len(rows), learning.batching.updates_per_step, generator):
                norm, results = self._update_once(rows, selected, old, reference)
                norms.append(norm)
                sums.append(self._sum_over_ranks(results))
                seen += [(batch, hidden) for _, batch, hidden in results]
        self._teach_predictor(rows, seen)
        self._optimizer.gather_weights()
        totals = {name: sum(part[name] for part in sums) for name in sums[0]}
        return self._metrics(rows, totals, len(norms)) | {"gradient_norm": max(norms)}

    def logprobs(self, rows: Sequence[Row]) -> Arrays:
        """The trainer's log-probability [length] of every learned token of every row; 0 elsewhere."""
        return self._score(rows)[0]

    def predictions(self, rows: Sequence[Row]) -> Arrays:
        """The predicted success probability [length] at every anchor of every row; 0 elsewhere."""
        return self._score(rows)[1]

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """All weights as whole HF tensors, for the samplers, on every rank, in the order of `weight_metadata`.

        The predictor's tensors are among them, and lm_head.weight also where it is tied to the embedding.
        All ranks must use the iterator up, or the others wait for ever.
        """
        return self._weights.stream(with_tied_head=True, with_predictor=True)

    def weight_metadata(self) -> list[TensorMeta]:
        """Name, dtype and shape of what `weights` yields, element for element, without moving any."""
        return self._weights.metadata(with_tied_head=True, with_predictor=True)

    def save_hf(self, path: Path) -> None:
        """Write the policy as an HF folder with its tokenizer and predictor; it appears whole or not at all."""
        from megatron_trace.models.predictor import FILE, NAMES

        everything = self._weights.stream(with_tied_head=False, with_predictor=True)
        if distributed.get_rank() != 0:
            drain(everything)
        else:
            metadata = self._weights.metadata(with_tied_head=False, with_predictor=False)
            predictor: dict[str, Tensor] = {}

            def model_only() -> Iterator[tuple[str, Tensor]]:
                for name, tensor in everything:
                    if name in NAMES:
                        predictor[name] = tensor
                    else:
                        yield name, tensor

            source, dtype = hf_assets_dir(Path(self.config.model.path)), metadata[0][1]
            write_folder(
                path, source, model_only(), metadata, {FILE: predictor}, config_dtype=dtype
            )
        distributed.barrier()

    def begin_checkpoint(self, folder: Path) -> None:
        """Copy all state and start writing it to the existing `folder`, while training goes on.

        Raises:
            RuntimeError: the checkpoint before is not finished.
        """
        self._checkpoint.begin(folder)

    def finish_checkpoint(self, wait: bool) -> str | None:
        """See `CheckpointWriter.finish`."""
        return self._checkpoint.finish(wait=wait)

    def verify_checkpoint(self, folder: Path) -> str:
        """What is wrong with a checkpoint's files, or "". The ranks share the reading."""
        try:
            verify(folder, distributed.get_rank(), distributed.get_world_size())
            mine = ""
        except DamagedCheckpoint as error:
            mine = str(error)
        problems = [""] * distributed.get_world_size()
        distributed.all_gather_object(problems, mine)
        return "; ".join(dict.fromkeys(filter(None, problems)))

    def load_checkpoint(self, folder: Path, updates: int) -> None:
        """Go on from a checkpoint that any layout wrote.

        Args:
            updates: optimizer updates done when it was written.
        """
        from megatron_trace.policy.checkpoint import load

        load(self._chunks, self._optimizer, folder, updates)

    def updates(self) -> int:
        """Optimizer updates done so far."""
        return self._optimizer.updates

    def _reference_logprobs(self, rows: Sequence[Row]) -> Arrays | None:
        if self._reference is None:
            return None
        with self._reference.in_place():
            return self.logprobs(rows)

    def _update_once(
        self,
        rows: Sequence[Row],
        selected: Sequence[int],
        old: Arrays | None,
        reference: Arrays | None,
    ) -> tuple[float, list[Any]]:
        """The gradient norm, and what `steps.learn` handed back for every micro-batch."""
        from megatron_trace.policy.steps import learn, run_schedule

        learning = self.config.learning
        known = {
            "weights": row_weights(rows, selected, learning.loss),
            "old": old,
            "reference": reference,
        }
        teaching = [index for index in selected if teaches_policy(rows[index], learning.loss)]
        rest = sorted(set(selected) - set(teaching))
        loss = partial(learn, learning.loss)
        for chunk in self._chunks:
            chunk.zero_grad_buffer()
        self._optimizer.zero_grad()
        results = []
        if rest:
            # Before the gradients: Megatron gathers weights in the first forward pass after these are reduced, which
            # must be that of the next update.
            with torch.no_grad():
                batches = self._batches(rows, rest, **known)
                results += run_schedule(self._chunks, batches, loss, forward_only=True)
        # (Where no row teaches, a dummy's gradients: Adam goes on all the same.)
        batches = self._batches(rows, teaching, **known)
        results += run_schedule(self._chunks, batches, loss, forward_only=False)
        return self._optimizer.step(), results

    def _teach_predictor(self, rows: Sequence[Row], seen: Sequence[Seen]) -> None:
        if (predictor := self._optimizer.predictor) is None:
            return
        width, device = self._chunks[-1].config.hidden_size, self.parallel.device
        # With tensor and context parallelism several ranks have seen the same.
        hidden = states_in_order(rows, seen if self.parallel.is_output_rank else [], width, device)
        updates = self._optimizer.updates
        generator = np.random.default_rng([*b"predictor", self.config.run.seed, updates])
        factor = learning_rate_factor(updates - 1, self.config.learning.optimizer)
        predictor.learn(hidden, targets(rows).to(device), generator, factor)

    def _batches(self, rows: Sequence[Row], selected: Sequence[int], **known: Any) -> list[Batch]:
        """This rank's micro-batches of the rows `selected`, at least a dummy; see `make_batch` for what may be
        `known`."""
        lengths = [len(row.tokens) for row in rows]
        plan = plan_micro_batches(
            lengths, selected, ranks=self.parallel.data_size, packing=self._packing
        )
        # Pipeline stages hand on hidden states of one shape.
        pipelined = self.parallel.pipeline_size > 1
        length = longest_micro_batch(lengths, plan, self._packing) if pipelined else 0
        chosen = plan[self.parallel.data] or [[] for _ in range(self._packing.count_multiple)]
        batches = [
            make_batch(rows, indices, self._packing, length=length, **known) for indices in chosen
        ]
        return [batch.to(self.parallel.device) for batch in batches]

    def _sum_over_ranks(
        self, results: Sequence[tuple[dict[str, Tensor], Batch, Tensor]]
    ) -> dict[str, float]:
        """Totals over micro-batches and data-parallel ranks, on every rank."""
        everyone: list[dict[str, float] | None] = [None] * distributed.get_world_size()
        mine = None
        if self.parallel.is_output_rank:
            names = sorted(results[0][0])
            table = torch.stack(
                [torch.stack([sums[name] for name in names]) for sums, _, _ in results]
            )
            mine = dict(zip(names, table.double().sum(0).tolist(), strict=True))
            mine["computed"] = sum(batch.tokens.numel() for _, batch, _ in results)
        distributed.all_gather_object(everyone, mine)
        spoken = [part for part in everyone if part is not None]
        return {name: sum(part[name] for part in spoken) for name in spoken[0]}

    def _metrics(
        self, rows: Sequence[Row], totals: dict[str, float], updates: int
    ) -> dict[str, float]:
        epochs = self.config.learning.batching.epochs
        tokens = sum(int(row.learn.sum()) for row in rows)
        anchors = sum(int(row.predict.sum()) for row in rows)
        computed = totals.pop("computed")
        predictor = {
            name: totals.pop(name) / max(epochs * anchors, 1)
            for name in ("predictor_loss", "prediction")
        }
        return (
            token_metrics(totals, epochs * tokens, updates)
            | predictor
            | {
                "learned_tokens": float(tokens),
                "predicted_anchors": float(anchors),
                "updates": float(updates),
                "padding": 1.0 - epochs * sum(len(row.tokens) for row in rows) / computed,
            }
        )

    @torch.no_grad()
    def _score(self, rows: Sequence[Row]) -> tuple[Arrays, Arrays]:
        from megatron_trace.policy.steps import keep_scores, run_schedule

        batches = self._batches(rows, range(len(rows)))
        results = run_schedule(self._chunks, batches, keep_scores, forward_only=True)
        starts = np.cumsum([0, *(len(row.tokens) for row in rows)])
        values = torch.zeros(2, int(starts[-1]), device=self.parallel.device)
        if self.parallel.is_output_rank:
            for batch, logprob, prediction in results:
                # From places in the micro-batch to places in all rows laid end to end.
                shift = torch.tensor([*starts[batch.rows], 0], device=self.parallel.device)[
                    : len(batch.starts) - 1
                ]
                moved = torch.repeat_interleave(shift - batch.starts[:-1], batch.starts.diff())
                values[0, batch.learn_at + 1 + moved[batch.learn_at]] = logprob
                values[1, batch.predict_at + moved[batch.predict_at]] = torch.sigmoid(prediction)
        # Each entry is set on one rank at most, so the sum is a gathering.
        distributed.all_reduce(values)
        logprobs, predictions = (np.split(line, starts[1:-1]) for line in values.cpu().numpy())
        return logprobs, predictions
