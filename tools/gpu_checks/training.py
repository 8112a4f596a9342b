"""A policy's numbers on made-up rows, and how near two sets of them are."""

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpu_checks.check import require
from megatron_trace.check.load import load_config
from megatron_trace.config import Config
from megatron_trace.learning.rows import Row
from megatron_trace.policy.policy import Policy

MICRO_BATCH_TOKENS = 1024


@dataclass(frozen=True)
class Numbers:
    """What a policy says of rows, and what it then learns from them.

    Attributes:
        logprobs: of all learned tokens, in nats, before it learns.
        predictions: success probabilities at all anchors, before it learns.
        updates: metrics of the steps that follow.
    """

    logprobs: NDArray[np.float32]
    predictions: NDArray[np.float32]
    updates: list[dict[str, float]]


@dataclass(frozen=True)
class Tolerance:
    """The loosest right deviations.

    Attributes:
        nats: mean of |Δ log-probability|.
        prediction: mean of |Δ probability|.
        relative: of loss and gradient norm.
    """

    nats: float
    prediction: float
    relative: float


FLOAT32 = Tolerance(nats=1e-4, prediction=1e-4, relative=2e-3)
"""Two float32 programs: sums in another order, 1e-6 of each value, through all layers."""
BF16 = Tolerance(nats=0.05, prediction=0.02, relative=0.03)
"""bf16 against float32: 8 bits of every activation, an error of 0.2 to 0.4 % each time."""
FP8 = Tolerance(nats=0.3, prediction=0.1, relative=0.15)
"""FP8 against bf16: 4 bits (E4M3) of the inputs of every product, an error of 3 to 6 % each time."""


def make_rows(vocabulary: int, lengths: Sequence[int], seed: int = 0) -> list[Row]:
    """Random rows of these lengths. Their sampler was uniform, as a random policy nearly is."""
    random = np.random.default_rng(seed)
    rows: list[Row] = []
    for length in lengths:
        learn = random.random(length) < 0.6
        learn[:8] = False
        predict = random.random(length) < 0.05
        predict[4] = True
        advantage = random.normal(size=length).astype(np.float32)
        sampler = 0.1 * random.normal(size=length) - np.log(vocabulary)
        rows.append(
            Row(
                tokens=random.integers(0, vocabulary, length),
                learn=learn,
                advantage=np.where(learn, advantage, 0),
                sampler_logprob=np.where(learn, sampler, 0).astype(np.float32),
                predict=predict,
                target=np.where(predict, 0.8, 0).astype(np.float32),
                turn=np.cumsum(predict) - predict,
                rollout=len(rows),
                tree=len(rows),
            )
        )
    return rows


def some_rows(vocabulary: int, count: int = 24) -> list[Row]:
    """Rows of 40 to 200 tokens."""
    lengths = np.random.default_rng(1).integers(40, 200, count)
    return make_rows(vocabulary, lengths.tolist())


def make_trees(vocabulary: int, *, trees: int, prompt: int, leaves: int, turn: int) -> list[Row]:
    """Random rows of trees: a prompt, a first turn for every two leaves, and a last one for each.

    Rows learn from tokens that they share, as if these had been sampled several times.

    Args:
        prompt: its tokens.
        turn: tokens of a turn.
    """
    rows = make_rows(vocabulary, [prompt + 2 * turn] * (trees * leaves))
    kind = np.repeat([0, 1, 2], [prompt, turn, turn])
    for number, row in enumerate(rows):
        tree, leaf = divmod(number, leaves)
        first, pair = rows[tree * leaves], rows[number - leaf % 2]
        row.tokens[:prompt] = first.tokens[:prompt]
        row.tokens[prompt : prompt + turn] = pair.tokens[prompt : prompt + turn]
        # 0 is the prompt; the numbers of first turns are odd, those of last ones even.
        row.turn = np.array([0, 1 + leaf - leaf % 2, 2 + 2 * leaf])[kind]
        row.tree = tree
    return rows


def settings(folder: Path, *changed: str) -> Config:
    """Settings for the model in `folder`, with dotted overrides."""
    return load_config(
        None,
        [
            f"model.path={folder}",
            "learning.optimizer.learning_rate=1e-4",
            f"learning.batching.micro_batch_tokens={MICRO_BATCH_TOKENS}",
            "rollout.max_history_tokens=512",
            "rollout.weight_backend=ray",
            *changed,
        ],
    )


def train(config: Config, rows: Sequence[Row], end: Path | None = None) -> Numbers:
    """Score `rows`, then learn from them twice.

    Args:
        end: where the trained policy is written.
    """
    policy = Policy(config)
    numbers = scored(policy, rows)
    numbers.updates.extend([policy.update(rows), policy.update(rows)])
    if end is not None:
        policy.save_hf(end)
    del policy
    forget_policies()
    return numbers


def scored(policy: Policy, rows: Sequence[Row]) -> Numbers:
    """What a policy says of rows."""
    logprobs, predictions = policy.logprobs(rows), policy.predictions(rows)
    return Numbers(at(logprobs, rows, "learn"), at(predictions, rows, "predict"), updates=[])


def at(values: Sequence[NDArray], rows: Sequence[Row], name: str) -> NDArray[np.float32]:
    """The values of all rows where their mask `name` is set, end to end."""
    pairs = zip(values, rows, strict=True)
    return np.concatenate([value[getattr(row, name)] for value, row in pairs])


def forget_policies() -> None:
    """Free the memory of policies that nothing refers to; each one froze what the process held."""
    gc.unfreeze()
    gc.collect()


def compare(exact: Numbers, found: Numbers, most: Tolerance) -> str:
    """How far `found` is from `exact`.

    Raises:
        Wrong: further than `most`.
    """
    said = scores(exact, found, most)
    return f"off by {said}, {learning(exact.updates, found.updates, most.relative)}"


def scores(exact: Numbers, found: Numbers, most: Tolerance) -> str:
    """How far log-probabilities and predictions are from the exact ones.

    Raises:
        Wrong: further than `most`.
    """
    nats = float(np.abs(found.logprobs - exact.logprobs).mean())
    share = float(np.abs(found.predictions - exact.predictions).mean())
    require(nats <= most.nats, f"log-probabilities {nats:.3g} nats off; at most {most.nats:g}")
    require(share <= most.prediction, f"predictions {share:.3g} off; at most {most.prediction:g}")
    return f"log-probabilities {nats:.1e} nats, predictions {share:.1e}"


def learning(
    exact: Sequence[dict[str, float]], found: Sequence[dict[str, float]], most: float
) -> str:
    """How far the metrics of train steps are from the exact ones, relative to these.

    Raises:
        Wrong: further than `most`.
    """
    texts = []
    for name in ("policy_loss", "predictor_loss", "gradient_norm"):
        # The policy's loss may be near 0, where a relative deviation says nothing.
        floor = 0.3 if name == "policy_loss" else 1e-6
        pairs = zip(exact, found, strict=True)
        offs = [abs(b[name] - a[name]) / max(abs(a[name]), floor) for a, b in pairs]
        # Python's `max` would lose a NaN that is not the first.
        off = float(np.max(offs))
        text = f"{name.replace('_', ' ')} {off:.2%}"
        require(off <= most, f"{text} off; at most {most:.1%} is right")
        texts.append(text)
    return ", ".join(texts)
