"""The sides of tools/bench_train.py. Each runs in its own process and takes the turns that it reads.

    python tools/bench_train_sides.py SIDE WORK.pickle MODEL PRECISION MICRO_BATCH_TOKENS

SIDE: tree or rows (this project, so packed), plain rows or plain padded (`transformers`).
WORK.pickle: the rows of every set of trees, by its name. The turn "step NAME" is a train step on
them, "memory NAME" a step whose memory is measured.
"""

import pickle
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from bench_memory import peak_bytes
from bench_sides import Report, serve
from bench_train_rows import padded_plan

from megatron_trace.config import (
    BatchingConfig,
    Config,
    LearningConfig,
    OptimizerConfig,
    Pack,
    Precision,
)
from megatron_trace.learning.read_out import balanced, learned, unknown
from megatron_trace.learning.rows import COLUMNS, Row
from megatron_trace.models.predictor import PredictorHead, load_predictor
from megatron_trace.tree import ROOT

ONE_TOKEN = 1
"""A padded micro-batch of this many tokens is one row: a row is never cut."""

Step = Callable[[list[Row]], dict[str, float]]
"""Takes a train step on rows; returns its metrics, `gradient_norm` and `entropy` (nats) among them.
"""


def learning_settings(micro_batch_tokens: int) -> LearningConfig:
    """What all sides learn with: the defaults, at a learning rate that moves a small model little."""
    return LearningConfig(
        optimizer=OptimizerConfig(learning_rate=1e-6, weight_decay=0.01),
        batching=BatchingConfig(micro_batch_tokens=micro_batch_tokens),
    )


def trace(model: str, precision: Precision, micro_batch_tokens: int, pack: Pack) -> Step:
    """This project's train step: Megatron-Core, packed micro-batches, the distributed optimizer."""
    from megatron_trace.policy.policy import Policy

    config = Config(learning=learning_settings(micro_batch_tokens))
    config.learning.batching.pack = pack
    config.model.path, config.precision.train = model, precision
    config.rollout.max_history_tokens = micro_batch_tokens
    return Policy(config).update


class PlainPolicy:
    """The same model, loss and optimizer in `transformers` and PyTorch, as fast as plain code gets.

    The model is causal, so right padding needs no mask. Logits are computed only where a token is
    learned. Rows without an advantage need no backward pass through the model. AdamW is PyTorch's
    fused one. bf16 is autocast over float32 weights.
    """

    def __init__(self, model: str, precision: Precision, micro_batch_tokens: int) -> None:
        """Load the model of the HF folder `model`."""
        from transformers import AutoModelForCausalLM
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        self.micro_batch_tokens = micro_batch_tokens
        self.learning = learning_settings(micro_batch_tokens)
        self.autocast = precision is not Precision.float32
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        self.network = network.to(self.device).train()
        head = PredictorHead(self.network.config.hidden_size)
        load_predictor(head, Path(model))
        head.to(self.device)
        self.known = unknown(head.weight, head.bias)
        self.optimizer = self._optimizer()
        self.learned = self.rollouts = 0
        self.anchors: list[tuple[torch.Tensor, ...]] = []

    def _optimizer(self) -> torch.optim.Optimizer:
        """AdamW in Megatron's groups: weight decay on matrices alone."""
        settings = self.learning
        matrices = [p for p in self.network.parameters() if p.dim() > 1]
        vectors = [p for p in self.network.parameters() if p.dim() == 1]
        groups = [
            {"params": matrices, "weight_decay": settings.optimizer.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=settings.optimizer.learning_rate, fused=True)

    def _plan(self, rows: list[Row]) -> list[tuple[bool, list[Row]]]:
        """Micro-batches, each with whether its rows teach the policy; the two kinds are not mixed."""
        lengths = [len(row.tokens) for row in rows]
        # A micro-batch in which one row teaches needs the backward pass for all its rows.
        teaching = [index for index, row in enumerate(rows) if row.advantage.any()]
        rest = sorted(set(range(len(rows))) - set(teaching))
        plan = []
        for teaches, selected in ((True, teaching), (False, rest)):
            for batch in padded_plan(lengths, selected, self.micro_batch_tokens):
                plan.append((teaches, [rows[index] for index in batch]))
        return plan

    def _tensors(self, batch: list[Row]) -> dict[str, torch.Tensor]:
        """The rows' arrays, each padded on the right to [batch, seq]; the first row is the longest."""
        longest = len(batch[0].tokens)
        tensors = {}
        for name in COLUMNS:
            padded = []
            for row in batch:
                missing = longest - len(row.tokens)
                padded.append(np.pad(getattr(row, name), (0, missing)))
            tensors[name] = torch.from_numpy(np.stack(padded)).to(self.device)
        return tensors

    def _loss(self, batch: list[Row], teaches: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """A micro-batch's share of the step's loss, and the summed entropy of its learned tokens
        (nats).
        """
        columns = self._tensors(batch)
        learn = columns["learn"][:, 1:]
        with (
            torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast),
            torch.set_grad_enabled(teaches),
        ):
            output = self.network.model(input_ids=columns["tokens"], use_cache=False)
            hidden = output.last_hidden_state
            logits = self.network.lm_head(hidden[:, :-1][learn])
            every = torch.log_softmax(logits.float(), -1)
            tokens = columns["tokens"][:, 1:][learn]
            logprob = every.gather(1, tokens.unsqueeze(1)).squeeze(1)
        with torch.no_grad():
            entropy = -(every.exp() * every).sum()
        sampler = columns["sampler_logprob"][:, 1:][learn]
        advantage = columns["advantage"][:, 1:][learn]
        chosen = columns["predict"]
        root = columns["turn"][chosen] == ROOT
        self.anchors.append((hidden[chosen].detach(), columns["target"][chosen], root))
        return self._policy_loss(logprob, sampler, advantage), entropy

    def _policy_loss(
        self, logprob: torch.Tensor, sampler: torch.Tensor, advantage: torch.Tensor
    ) -> torch.Tensor:
        """The clipped policy gradient with truncated importance weights; all arguments are
        [learned].
        """
        settings = self.learning.loss
        # The one update of a step is on policy: old and current log-probabilities are the same.
        old = logprob.detach()
        ratio = (logprob - old).exp()
        importance = (old - sampler).exp().clamp(max=settings.importance_cap)
        clipped = ratio.clamp(1 - settings.clip_low, 1 + settings.clip_high)
        gain = importance * torch.minimum(ratio * advantage, clipped * advantage)
        return -gain.sum() / self.learned

    def step(self, rows: list[Row]) -> dict[str, float]:
        """Take a train step on `rows`."""
        self.learned = sum(int(row.learn.sum()) for row in rows)
        self.anchors = []
        self.rollouts = len(rows)
        self.optimizer.zero_grad()
        total = torch.zeros((), device=self.device)
        for teaches, batch in self._plan(rows):
            loss, entropy = self._loss(batch, teaches)
            if teaches:
                loss.backward()
            total += entropy
        clip = self.learning.optimizer.gradient_clip
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), clip)
        self.optimizer.step()
        self._teach_predictor()
        return {"gradient_norm": float(norm), "entropy": float(total) / self.learned}

    def _teach_predictor(self) -> None:
        hidden, target, root = (torch.cat(part) for part in zip(*self.anchors, strict=True))
        count = balanced(root, self.rollouts)
        self.known = learned(self.known, hidden, target, count, self.learning.predictor)


def make_step(side: str, model: str, precision: Precision, micro_batch_tokens: int) -> Step:
    """The train step of a side; there is no plain FP8, so bf16 stands in for it."""
    plain = Precision.bf16 if precision is Precision.fp8 else precision
    if side == "plain rows":
        return PlainPolicy(model, plain, ONE_TOKEN).step
    if side == "plain padded":
        return PlainPolicy(model, plain, micro_batch_tokens).step
    return trace(model, precision, micro_batch_tokens, Pack(side))


def report(step: Step, rows: list[Row]) -> Report:
    """Take a step; what it computed."""
    metrics = step(rows)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return {name: metrics[name] for name in ("gradient_norm", "entropy")}


def memory(step: Step, rows: list[Row]) -> Report:
    """Take a step; the most memory that it held at a time."""
    return {"bytes": peak_bytes(partial(step, rows))}


def main() -> None:
    """Build one side, then take a turn for every line of the input."""
    side, file, model, precision, tokens = sys.argv[1:]
    step = make_step(side, model, Precision(precision), int(tokens))
    turns: dict[str, Callable[[], Report]] = {}
    for name, rows in pickle.loads(Path(file).read_bytes()).items():
        turns[f"step {name}"] = partial(report, step, rows)
        turns[f"memory {name}"] = partial(memory, step, rows)
    serve(turns)


if __name__ == "__main__":
    main()
