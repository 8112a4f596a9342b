"""Samples with an engine from one model, then from another whose weights it is sent.

    python -m gpu_checks.sample_engine (cuda|cpu) MODEL OTHER OUT.pickle

Without Ray's processes: what fails here is the engine. Writes two lists of `Sample`s.
"""

import asyncio
import pickle
import sys
from pathlib import Path

import numpy as np
import torch

from gpu_checks.model import tensors
from gpu_checks.sample import Sample
from megatron_trace.check.load import load_config
from megatron_trace.config import Config
from megatron_trace.rollout.fingerprint import MODULUS, fingerprint
from megatron_trace.rollout.turns import Stop
from megatron_trace.rollout.vllm.engine import VLLMEngine
from megatron_trace.rollout.weights import Chunk
from megatron_trace.tree import Requires

PROMPTS, TURN_TOKENS = 12, 48
DTYPE = {"cuda": "bfloat16", "cpu": "float32"}
PRECISION = {"cuda": "bf16", "cpu": "float32"}


def engine_settings(folder: Path, device: str, *changed: str) -> Config:
    """Settings that trainer and engine share; other processes use the device too."""
    return load_config(
        None,
        [
            f"model.path={folder}",
            f"precision.train={PRECISION[device]}",
            f"precision.rollout={DTYPE[device]}",
            "learning.batching.micro_batch_tokens=1024",
            "rollout.temperature=0.8",
            "rollout.weight_backend=ray",
            "rollout.memory=0.3",
            "rollout.concurrency=16",
            "rollout.max_turn_tokens=48",
            "rollout.max_history_tokens=512",
            "rollout.cpu_cache_gib=1",
            *changed,
        ],
    )


def weights_of(folder: Path, dtype: torch.dtype) -> tuple[Chunk, int]:
    """All weights of a HF folder as an engine gets them, with their fingerprint."""
    chunk, total = Chunk(), 0
    for name, tensor in tensors(folder).items():
        sent = tensor.to(torch.float32 if name.startswith("predictor.") else dtype).contiguous()
        chunk.add(name, sent)
        total = (total + fingerprint(name, sent)) % MODULUS
    return chunk, total


async def sample(engine: VLLMEngine, vocabulary: int) -> list[Sample]:
    """A turn after each of some random prompts."""
    random = np.random.default_rng(3)
    prompts = [
        random.integers(0, vocabulary, length).tolist()
        for length in random.integers(20, 300, PROMPTS)
    ]
    turns = [
        engine.generate(prompt, max_tokens=TURN_TOKENS, seed=number)
        for number, prompt in enumerate(prompts)
    ]
    said = await asyncio.gather(*turns)
    return [Sample(*pair) for pair in zip(prompts, said, strict=True)]


async def both(device: str, model: Path, other: Path) -> list[list[Sample]]:
    """Samples of the model, and of the other one after its weights were loaded.

    Raises:
        RuntimeError: the engine holds other weights than it was sent.
    """
    config = engine_settings(model, device)
    requires = frozenset({Requires.entropies})
    engine = VLLMEngine.start(config, str(model), Stop(), device == "cuda", requires)
    vocabulary = engine.llm.model_config.hf_text_config.vocab_size
    await engine.set_version(0)
    first = await sample(engine, vocabulary)
    chunk, sent = weights_of(other, getattr(torch, DTYPE[device]))
    await engine.start_update()
    await engine.load_chunk(chunk)
    received = await engine.finish_update()
    if received != sent:
        raise RuntimeError(f"the engine's fingerprint is {received:016x}, of {sent:016x} sent")
    await engine.set_version(1)
    second = await sample(engine, vocabulary)
    engine.stop()
    return [first, second]


def main() -> None:
    """Sample from both models."""
    device, model, other, out = sys.argv[1:]
    samples = asyncio.run(both(device, Path(model), Path(other)))
    Path(out).write_bytes(pickle.dumps(samples))


if __name__ == "__main__":
    main()
