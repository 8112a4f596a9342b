"""The two sides of tools/bench_train.py, each in a process of its own that takes a train step for every line it reads.

    python tools/bench_train_sides.py (trace|transformers) ROWS.pickle MODEL PRECISION MICRO_BATCH_TOKENS

Prints a line of JSON when it is ready (with the machine's measured matrix rate) and after each step.
"""

import json
import pickle
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from megatron_trace.config import Config, LearningConfig, Precision
from megatron_trace.learning.rows import Row

HIDDEN = 128
"""Width of the predictor's hidden layer."""

RESERVED_ROWS = 2
"""The last tokens of the vocabulary carry the prediction in the sampler; the policy gives them no probability."""

COLUMNS = ("tokens", "learn", "advantage", "sampler_logprob", "predict", "target")
"""Arrays of a `Row`."""

Step = Callable[[], dict[str, float]]


def learning_settings(micro_batch_tokens: int) -> LearningConfig:
    """What both sides learn with: the defaults at a learning rate that moves a small model little."""
    return LearningConfig(
        learning_rate=1e-6,
        predictor_hidden=HIDDEN,
        micro_batch_tokens=micro_batch_tokens,
        weight_decay=0.01,
    )


def trace(rows: list[Row], model: str, precision: Precision, micro_batch_tokens: int) -> Step:
    """This project's train step: Megatron-Core, packed micro-batches, the distributed optimizer."""
    from megatron_trace.policy.policy import Policy

    config = Config(learning=learning_settings(micro_batch_tokens))
    config.model.path, config.precision.train = model, precision
    config.rollout.max_history_tokens = max(len(row.tokens) for row in rows)
    policy = Policy(config)
    return lambda: policy.update(rows)


def padded_plan(
    lengths: Sequence[int], selected: Sequence[int], micro_batch_tokens: int
) -> list[list[int]]:
    """Rows sorted by length, in right-padded micro-batches of at most so many tokens."""
    plan: list[list[int]] = []
    for index in sorted(selected, key=lambda index: -lengths[index]):
        # The first row of a micro-batch is its longest, to which the others are padded.
        if not plan or (len(plan[-1]) + 1) * lengths[plan[-1][0]] > micro_batch_tokens:
            plan.append([])
        plan[-1].append(index)
    return plan


def plain(rows: list[Row], model: str, precision: Precision, micro_batch_tokens: int) -> Step:
    """The same model, loss and optimizer in `transformers` and PyTorch, written as quick as it plainly goes.

    Its padding is causal, so needs no mask; logits are computed where something is learned; rows without an advantage
    need no backward pass through the model; AdamW is PyTorch's fused one. bf16 is autocast over float32 weights.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    from megatron_trace.models.predictor import PredictorHead, load_predictor

    disable_progress_bar()
    learning = learning_settings(micro_batch_tokens)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).to(device).train()
    head = PredictorHead(network.config.hidden_size, HIDDEN, 0)
    load_predictor(head, Path(model))
    head.to(device)
    matrices = [p for p in network.parameters() if p.dim() > 1]
    vectors = [p for p in network.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": learning.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
            {
                "params": list(head.parameters()),
                "lr": learning.predictor_learning_rate,
                "weight_decay": 0.0,
            },
        ],
        lr=learning.learning_rate,
        fused=True,
    )
    lengths = [len(row.tokens) for row in rows]
    teaching = [index for index, row in enumerate(rows) if row.advantage.any()]
    rest = sorted(set(range(len(rows))) - set(teaching))
    plans = [(True, plan) for plan in padded_plan(lengths, teaching, micro_batch_tokens)]
    plans += [(False, plan) for plan in padded_plan(lengths, rest, micro_batch_tokens)]
    learned, anchors = (
        sum(int(getattr(row, name).sum()) for row in rows) for name in ("learn", "predict")
    )

    def loss_of(chosen: list[Row], teaches: bool) -> tuple[torch.Tensor, torch.Tensor]:
        longest = len(chosen[0].tokens)
        tables = {
            name: torch.from_numpy(
                np.stack(
                    [np.pad(getattr(row, name), (0, longest - len(row.tokens))) for row in chosen]
                )
            ).to(device)
            for name in COLUMNS
        }
        learn = tables["learn"][:, 1:]
        with (
            torch.autocast(device.type, torch.bfloat16, enabled=precision is not Precision.float32),
            torch.set_grad_enabled(teaches),
        ):
            hidden = network.model(input_ids=tables["tokens"], use_cache=False).last_hidden_state
            logits = network.lm_head(hidden[:, :-1][learn])[:, :-RESERVED_ROWS].float()
            every = torch.log_softmax(logits, -1)
            logprob = every.gather(1, tables["tokens"][:, 1:][learn].unsqueeze(1)).squeeze(1)
        with torch.no_grad():
            entropy = -(every.exp() * every).sum()
        old = logprob.detach()
        ratio = (logprob - old).exp()
        sampler = tables["sampler_logprob"][:, 1:][learn]
        importance = (old - sampler).exp().clamp(max=learning.importance_cap)
        advantage = tables["advantage"][:, 1:][learn]
        clipped = ratio.clamp(1 - learning.clip_low, 1 + learning.clip_high)
        policy = (
            -(importance * torch.minimum(ratio * advantage, clipped * advantage)).sum() / learned
        )
        prediction = torch.sigmoid(head(hidden[tables["predict"]]))
        error = (prediction - tables["target"][tables["predict"]]).square().sum() / anchors
        return policy + error, entropy

    def step() -> dict[str, float]:
        optimizer.zero_grad()
        total = torch.zeros((), device=device)
        for teaches, plan in plans:
            loss, entropy = loss_of([rows[index] for index in plan], teaches)
            loss.backward()
            total += entropy
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), learning.gradient_clip)
        optimizer.step()
        return {"gradient_norm": float(norm), "entropy": float(total) / learned}

    return step


def matrix_rate(dtype: torch.dtype) -> float:
    """Floating-point operations per second of the best of several products of square matrices."""
    cuda = torch.cuda.is_available()
    size, repeats = (8192, 20) if cuda else (1024, 30)
    left, right = (
        torch.randn(size, size, device="cuda" if cuda else "cpu").to(dtype) for _ in range(2)
    )
    best = float("inf")
    for _ in range(repeats):
        begin = time.perf_counter()
        left @ right
        if cuda:
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - begin)
    return 2 * size**3 / best


def main() -> None:
    """Build one side, then a step for every line of the input."""
    side, file, model, name, tokens = sys.argv[1:]
    precision = Precision(name)
    rate = matrix_rate(torch.float32 if precision is Precision.float32 else torch.bfloat16)
    build = {"trace": trace, "transformers": plain}[side]
    step = build(pickle.loads(Path(file).read_bytes()), model, precision, int(tokens))

    def say(message: dict[str, Any]) -> None:
        print("\n" + json.dumps(message), flush=True)

    say({"matrix_rate": rate})
    for _ in sys.stdin:
        begin, spent = time.perf_counter(), time.process_time()
        result = step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times = {"seconds": time.perf_counter() - begin, "processor": time.process_time() - spent}
        say(times | {key: result[key] for key in ("gradient_norm", "entropy")})


if __name__ == "__main__":
    main()
