"""The inference engine as a worker uses it: plain data in, plain data out.

`rollout/vllm/` implements the protocol. Another engine implements it beside that folder, and
`backends.py` chooses it; no other file changes.
"""

from dataclasses import dataclass, field
from typing import Any, Protocol

from megatron_trace.config import Config
from megatron_trace.rollout.turns import Stop
from megatron_trace.rollout.weights import Chunk
from megatron_trace.tree import Requires


class EngineDied(RuntimeError):
    """The engine's process has died. The fleet then restarts the worker and repeats its calls."""


@dataclass(frozen=True)
class Generation:
    """What one call of `Engine.generate` returns.

    Attributes:
        token_ids: sampled token ids, stop token included.
        logprobs: log-probability of each sampled token.
        versions: policy version of each sampled token.
        prediction: predicted success probability of the history that was the prompt.
        truncated: sampling ended at `max_tokens` and not at a stop.
        cached_tokens: prompt tokens that the prefix cache served.
        entropies: entropy, in nats, of the distribution that each token was sampled from; empty
            unless needed.
    """

    token_ids: list[int]
    logprobs: list[float]
    versions: list[int]
    prediction: float
    truncated: bool
    cached_tokens: int
    entropies: list[float] = field(default_factory=list)


class Engine(Protocol):
    """One running inference engine, with the policy and its predictor head.

    Every method that talks to the engine's process raises `EngineDied` if that process has died.

    New weights arrive as: `start_update`; `load_chunk` or `receive`, once for each part of them;
    `finish_update`; `set_version`. Nothing may be sampled meanwhile.
    """

    async def generate(self, prompt_ids: list[int], *, max_tokens: int, seed: int) -> Generation:
        """Sample after `prompt_ids` until a stop, at most `max_tokens` tokens."""
        ...

    async def embed(self, prompts: list[list[int]]) -> list[list[float]]:
        """Mean of the policy's input embeddings over each prompt's tokens, [prompts, hidden]."""
        ...

    async def ping(self) -> None:
        """Return when every process of the engine has answered. Only between updates."""
        ...

    async def join_trainer(self, init_info: dict[str, Any]) -> None:
        """Join the trainer's process group; only for weights that do not travel as chunks.

        Args:
            init_info: address and ranks, as the sending side of the same engine made them.
        """
        ...

    async def start_update(self) -> None:
        """Make the layers ready to be loaded. A second call before `finish_update` does nothing."""
        ...

    async def load_chunk(self, chunk: Chunk) -> None:
        """Load some tensors, given as bytes."""
        ...

    async def receive(self, update_info: dict[str, Any]) -> None:
        """Load the tensors that the trainer broadcasts in the group of `join_trainer`.

        Args:
            update_info: what is broadcast, as the sending side of the same engine describes it.
        """
        ...

    async def finish_update(self) -> int:
        """All tensors have come.

        Returns:
            The fingerprint of all tensors since `start_update`, see `weights.fingerprint`.

        Raises:
            RuntimeError: the ranks of the engine received different weights.
        """
        ...

    async def set_version(self, version: int) -> None:
        """Label sampled tokens with `version` from now on, and drop all cached histories.

        Raises:
            RuntimeError: rollouts are running.
        """
        ...

    def stop(self) -> None:
        """End the engine's process, its sockets and semaphores. Blocks until it is gone."""
        ...


class EngineStarter(Protocol):
    """Makes an engine; called in the worker's process, within a running event loop."""

    def __call__(
        self,
        config: Config,
        model_path: str,
        stop: Stop,
        gpu: bool,
        requires: frozenset[Requires],
    ) -> Engine:
        """Load the model and start the engine's process.

        Args:
            config: all settings.
            model_path: HF folder. Without weights in it they are random until the first update.
            stop: what ends a turn.
            gpu: whether the engine has GPUs.
            requires: what a generation carries beyond log-probabilities and predictions.
        """
        ...
