"""A worker: the Ray actor that holds one inference engine and the environments of its rollouts."""

import asyncio
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from megatron_trace.config import Config, SettingError
from megatron_trace.envs.environment import Environment
from megatron_trace.models.chat import load_codec
from megatron_trace.rollout.agent import Limits, sample_rollout
from megatron_trace.rollout.engine import EngineStarter
from megatron_trace.rollout.episode import CallRules, Episode
from megatron_trace.rollout.failures import EpisodeFailed, Failure
from megatron_trace.rollout.turns import make_turns
from megatron_trace.rollout.types import RolloutRequest, SampledRollout, ScoredRoot
from megatron_trace.rollout.weights import WeightUpdate
from megatron_trace.supervise import stacks
from megatron_trace.tree import Requires

EnvironmentMaker = Callable[[], Callable[[], Environment]]
"""Called once in every worker; returns the maker of episodes."""


class Worker:
    """Samples rollouts. The fleet calls its methods by `actors.call`."""

    def __init__(
        self,
        config: Config,
        model_path: str,
        start_engine: EngineStarter,
        environments: EnvironmentMaker,
        gpu: bool,
        requires: frozenset[Requires] = frozenset(),
        folder: str = ".",
    ) -> None:
        """Nothing happens before `start`. Relative paths of the settings count from `folder`."""
        stacks.register("worker", watch=True)
        self._config = config
        self._model_path = model_path
        self._start_engine = start_engine
        self._environments = environments
        self._gpu = gpu
        self._requires = requires
        self._folder = folder
        self._limits = Limits(config.rollout.max_turn_tokens, config.rollout.max_history_tokens)
        self._received = 0

    async def start(self) -> dict[str, float]:
        """Start the engine with the weights of the HF folder, as version 0, and sample two tokens.

        Returns:
            Seconds that each phase took.

        Raises:
            SettingError: this node does not have the run's folder.
        """
        begin = time.perf_counter()
        enter(self._folder, self._config.rollout.ray_address)
        self._new_environment = self._environments()
        sample = self._new_environment()
        settings = self._config.environment
        self._rules = CallRules(
            settings.name,
            sample.retryable,
            settings.retries,
            settings.step_timeout_s,
            settings.task_timeout_s,
            asyncio.Semaphore(settings.calls),
        )
        environment_s = time.perf_counter() - begin
        codec = load_codec(self._model_path, settings.chat_template)
        self._turns = make_turns(
            codec, sample.chat, sample.stop, settings.renderer, settings.thoughts
        )
        self._engine = self._start_engine(
            self._config, self._model_path, self._turns.stop, self._gpu, self._requires
        )
        engine_s = time.perf_counter() - begin - environment_s
        await self._engine.set_version(0)
        # The engine's first request is slow; it should not be one that anybody waits for.
        await self._engine.generate(codec.encode("a"), max_tokens=2, seed=0)
        first_token_s = time.perf_counter() - begin - environment_s - engine_s
        return {
            "environment_s": environment_s,
            "engine_s": engine_s,
            "first_token_s": first_token_s,
        }

    async def open_trees(self, tasks: Sequence[Mapping[str, Any]]) -> list[ScoredRoot | Failure]:
        """Start an episode of every task and score its prompt, which is embedded if needed."""
        opened = await asyncio.gather(*(self._open_tree(task) for task in tasks))
        roots = [root for root in opened if isinstance(root, ScoredRoot)]
        if roots and Requires.embedding in self._requires:
            embeddings = await self._engine.embed([root.prompt_ids for root in roots])
            for root, embedding in zip(roots, embeddings, strict=True):
                root.embedding = embedding
        return opened

    async def _open_tree(self, task: Mapping[str, Any]) -> ScoredRoot | Failure:
        episode = Episode(self._new_environment, self._rules, str(task.get("id")))
        longest = self._limits.max_history_tokens
        try:
            prompt_ids, state = await episode.begin(task, self._turns.prompt_ids, longest)
        except EpisodeFailed as error:
            return error.failure
        # The prediction for a history comes with the first token after it.
        generation = await self._engine.generate(prompt_ids, max_tokens=1, seed=0)
        return ScoredRoot(prompt_ids, generation.prediction, state)

    async def rollout(self, request: RolloutRequest) -> SampledRollout:
        """Sample one rollout."""
        return await sample_rollout(
            request,
            Episode(self._new_environment, self._rules, request.tree),
            self._engine.generate,
            self._turns,
            self._limits,
            self._config.run.seed,
        )

    async def load_update(self, update: WeightUpdate) -> None:
        """Load a version from Ray's object store and sample as that version from now on.

        Raises:
            RuntimeError: the weights changed on the way, or rollouts are running.
        """
        await self.start_receiving()
        # Ray does not resolve references inside an argument. So one chunk at a time is mapped and
        # copied to the engine, not the whole model at once.
        for reference in update.chunks:
            await self._engine.load_chunk(await reference)
        await self.finish_receiving()
        await self.finish_version(update.version, update.fingerprint)

    async def ping(self) -> None:
        """Return when the engine has answered."""
        await self._engine.ping()

    async def join_trainer(self, init_info: dict[str, Any]) -> None:
        """Join the trainer's process group; see `Engine.join_trainer`."""
        await self._engine.join_trainer(init_info)

    async def start_receiving(self) -> None:
        """Make the engine's layers ready to be loaded."""
        await self._engine.start_update()

    async def receive(self, update_info: dict[str, Any]) -> None:
        """Load what the trainer broadcasts; see `Engine.receive`."""
        await self._engine.receive(update_info)

    async def finish_receiving(self) -> None:
        """All parts have come."""
        self._received = await self._engine.finish_update()

    async def finish_version(self, version: int, fingerprint: int) -> None:
        """Sample as `version` from now on, and drop all cached histories.

        Args:
            version: policy version of the tokens sampled from now on.
            fingerprint: of the weights that were sent.

        Raises:
            RuntimeError: other weights were received than sent, or rollouts are running.
        """
        if self._received != fingerprint:
            raise RuntimeError(f"weights of version {version} changed on the way to the fleet")
        await self._engine.set_version(version)

    async def stop(self) -> None:
        """End the engine's process, which takes its sockets and semaphores along."""
        await asyncio.to_thread(self._engine.stop)


def enter(folder: str, ray_address: str | None) -> None:
    """Make `folder` the current one: an actor begins in the folder in which Ray was started.

    Raises:
        SettingError: this node does not have it.
    """
    try:
        os.chdir(folder)
    except OSError as error:
        remedy = (
            f"its node {socket.gethostname()} has no folder {folder} ({error.strerror}); start the "
            "run in a folder that all nodes share"
        )
        raise SettingError("rollout.ray_address", ray_address, remedy) from None
