"""The engine's numbers against the trainer's: log-probabilities, predictions, entropies."""

import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gpu_checks.check import Context, Skip, Wrong, require
from gpu_checks.model import NUMBERS, make_model
from gpu_checks.sample import Sample
from gpu_checks.sample_engine import engine_settings
from gpu_checks.training import BF16, FLOAT32, Numbers, forget_policies, scored, scores
from megatron_trace.learning.rows import Row
from megatron_trace.policy.policy import Policy

TOLERANCE = {"cuda": BF16, "cpu": FLOAT32}
STALE_NATS = 0.2
"""Two random models are at least so far apart: a check that cannot tell them is worth nothing."""


def engine(context: Context) -> str:
    """The engine with the weights of a HF folder."""
    return agreement(context, samples(context)[0], models(context)[0])


def layerwise_reload(context: Context) -> str:
    """The engine after another model's weights were loaded into it."""
    loaded, (stale, other) = samples(context)[1], models(context)
    text = agreement(context, loaded, other)
    old = scored(Policy(engine_settings(stale, context.device)), rows_of(loaded))
    apart = float(np.abs(old.logprobs - numbers_of(loaded).logprobs).mean())
    require(apart > STALE_NATS, f"the two models are only {apart:.3f} nats apart")
    return f"{text}; {apart:.1f} nats from the weights before"


def agreement(context: Context, given: Sequence[Sample], folder: Path) -> str:
    """How far the engine's numbers are from those of a trainer with the model in `folder`.

    Raises:
        Wrong: too far.
    """
    policy, rows = Policy(engine_settings(folder, context.device)), rows_of(given)
    most, said = TOLERANCE[context.device], numbers_of(given)
    text = scores(scored(policy, rows), said, most)
    # A policy tells its entropy only while it learns.
    right = policy.update(rows)["entropy"]
    del policy
    forget_policies()
    found = float(np.mean([value for sample in given for value in sample.said.entropies]))
    off = abs(found - right) / right
    require(off <= most.relative, f"entropy {found:.4f}, the trainer's is {right:.4f}")
    return f"{len(said.logprobs)} tokens, off by {text}, entropy {off:.2%}"


def samples(context: Context) -> list[list[Sample]]:
    """What the engine sampled from both models, when first asked for.

    Raises:
        Skip: it failed then.
    """
    file, failure = (context.work / f"samples.{end}" for end in ("pickle", "failed"))
    if failure.exists():
        raise Skip("needs the engine, which has failed")
    if not file.exists():
        failure.touch()
        folders = map(str, models(context))
        command = [sys.executable, "-m", "gpu_checks.sample_engine", context.device, *folders]
        done = subprocess.run([*command, str(file)], check=False)
        if done.returncode:
            raise Wrong(f"the engine's process ended with exit code {done.returncode}")
        failure.unlink()
    return pickle.loads(file.read_bytes())


def models(context: Context) -> tuple[Path, Path]:
    """Folders of two models of one shape."""
    shape = NUMBERS[context.device]
    first, second = context.work / "engine_model", context.work / "engine_other"
    return make_model(first, shape, seed=1), make_model(second, shape, seed=2)


def rows_of(given: Sequence[Sample]) -> list[Row]:
    """The samples as rows whose turns are learned, with an anchor at the end of each prompt."""
    rows = []
    for number, sample in enumerate(given):
        tokens = np.array(sample.prompt + sample.said.token_ids)
        place = np.arange(len(tokens))
        learn = place >= len(sample.prompt)
        logprob = np.zeros(len(tokens), dtype=np.float32)
        logprob[learn] = sample.said.logprobs
        rows.append(
            Row(
                tokens=tokens,
                learn=learn,
                advantage=learn.astype(np.float32),
                sampler_logprob=logprob,
                predict=place == len(sample.prompt) - 1,
                target=np.zeros(len(tokens), dtype=np.float32),
                turn=learn.astype(np.int64),
                rollout=number,
                tree=number,
            )
        )
    return rows


def numbers_of(given: Sequence[Sample]) -> Numbers:
    """What the engine said of its own samples."""
    return Numbers(
        np.concatenate([np.array(sample.said.logprobs, np.float32) for sample in given]),
        np.array([sample.said.prediction for sample in given], np.float32),
        updates=[],
    )
