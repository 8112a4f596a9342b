"""A worker: the Ray actor that holds one vLLM engine and the environments of its rollouts."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from megatron_trace.config import Config
from megatron_trace.envs.environment import Environment
from megatron_trace.rollout.agent import Codec, Limits, sample_rollout
from megatron_trace.rollout.types import EngineDied, RolloutRequest, SampledRollout, ScoredRoot
from megatron_trace.rollout.vllm.engine import Engine
from megatron_trace.rollout.weights import WeightUpdate
from megatron_trace.supervise import stacks
from megatron_trace.tree import Need

EnvironmentMaker = Callable[[], Callable[[], Environment]]
"""Called once in every worker; returns the maker of episodes."""

Result = TypeVar("Result")


class Worker:
    """Samples rollouts."""

    def __init__(
        self,
        config: Config,
        model_path: str,
        environments: EnvironmentMaker,
        gpu: bool,
        needs: frozenset[Need] = frozenset(),
    ) -> None:
        """Nothing happens before `start`."""
        stacks.register("worker", watch=True)
        self._config = config
        self._model_path = model_path
        self._environments = environments
        self._gpu = gpu
        self._needs = needs
        self._limits = Limits(config.rollout.max_turn_tokens, config.rollout.max_history_tokens)

    async def start(self, update: WeightUpdate | None) -> dict[str, float]:
        """Start the engine, load `update` where given, and sample a first token.

        Returns:
            Seconds that each phase took.
        """
        begin = time.perf_counter()
        self._new_environment = self._environments()
        stop = self._new_environment().stop
        environment_s = time.perf_counter() - begin
        self._engine = Engine.start(self._config, self._model_path, stop, self._gpu, self._needs)
        tokenizer = self._engine.tokenizer
        self._codec = Codec(
            encode=lambda text: tokenizer.encode(text, add_special_tokens=False),
            decode=tokenizer.decode,
        )
        engine_s = time.perf_counter() - begin - environment_s
        if update is None:
            await self._engine.set_version(0)
        else:
            await self.update_weights(update)
        await self._engine.generate(tokenizer.encode("a"), max_tokens=2, seed=0)
        first_token_s = time.perf_counter() - begin - environment_s - engine_s
        return {
            "environment_s": environment_s,
            "engine_s": engine_s,
            "first_token_s": first_token_s,
        }

    async def open_trees(self, tasks: Sequence[Mapping[str, Any]]) -> list[ScoredRoot]:
        """Start an episode of every task and score its prompt, which is embedded where that is needed."""
        roots = await self._alive(asyncio.gather(*(self._open_tree(task) for task in tasks)))
        if Need.embedding in self._needs:
            embeddings = await self._alive(self._engine.embed([root.prompt_ids for root in roots]))
            for root, embedding in zip(roots, embeddings, strict=True):
                root.embedding = embedding
        return roots

    async def _open_tree(self, task: Mapping[str, Any]) -> ScoredRoot:
        messages, state = await asyncio.to_thread(self._reset, task)
        prompt_ids = self._engine.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=False
        )
        if len(prompt_ids) >= self._limits.max_history_tokens:
            raise ValueError(
                f"a prompt of {len(prompt_ids)} tokens leaves no room within max_history_tokens"
            )
        generation = await self._engine.generate(prompt_ids, max_tokens=1, seed=0)
        return ScoredRoot(list(prompt_ids), generation.prediction, state)

    def _reset(self, task: Mapping[str, Any]) -> tuple[list[dict[str, str]], dict[str, Any]]:
        environment = self._new_environment()
        return environment.reset(task), environment.snapshot()

    async def rollout(self, request: RolloutRequest) -> SampledRollout:
        """Sample one rollout."""
        return await self._alive(
            sample_rollout(
                request,
                self._new_environment(),
                self._engine.generate,
                self._codec,
                self._limits,
                self._config.run.seed,
            )
        )

    async def update_weights(self, update: WeightUpdate) -> int:
        """Load a version's weights from Ray's object store, and sample as that version from now on.

        Returns:
            The weights' fingerprint, as the engine received them.

        Raises:
            RuntimeError: the weights changed on the way, or cached histories could not be dropped.
        """
        await self.start_receiving()
        for reference in update.chunks:
            chunk = await reference
            await self.receive({**vars(chunk), "data": [array.tobytes() for array in chunk.data]})
        await self.finish_receiving()
        received = await self.finish_version(update.version)
        if received != update.fingerprint:
            raise RuntimeError(
                f"weights of version {update.version} changed on the way to the fleet"
            )
        return received

    async def join_trainer(self, init_info: dict[str, Any]) -> None:
        """Join the trainer's group (NCCL)."""
        from vllm.distributed.weight_transfer.base import WeightTransferInitRequest

        await self._alive(
            self._engine.llm.init_weight_transfer_engine(WeightTransferInitRequest(init_info))
        )

    async def start_receiving(self) -> None:
        """Make the engine's layers ready to be loaded anew."""
        await self._engine.take_fingerprint()  # forget that of what was loaded before
        await self._alive(self._engine.llm.start_weight_update())

    async def receive(self, update_info: dict[str, Any]) -> None:
        """Load a part of the weights; `update_info` is what the weight-transfer backend takes."""
        from vllm.distributed.weight_transfer.base import WeightTransferUpdateRequest

        await self._alive(self._engine.llm.update_weights(WeightTransferUpdateRequest(update_info)))

    async def finish_receiving(self) -> None:
        """All parts have come."""
        await self._alive(self._engine.llm.finish_weight_update())

    async def finish_version(self, version: int) -> int:
        """Sample as `version` from now on, and forget the histories cached before.

        Returns:
            Fingerprint of what was loaded since `start_receiving`.
        """
        await self._alive(self._engine.set_version(version))
        return await self._alive(self._engine.take_fingerprint())

    async def stop(self) -> None:
        """End the engine's process, which takes its sockets and semaphores along."""
        await asyncio.to_thread(self._engine.llm.shutdown)

    async def processes(self) -> dict[str, int]:
        """Process ids of this actor and of its engine."""
        manager = self._engine.llm.engine_core.resources.engine_manager
        return {"actor": os.getpid(), "engine": manager.processes[0].pid}

    async def _alive(self, work: Awaitable[Result]) -> Result:
        """Await `work`; tell the fleet where the engine has died."""
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            return await work
        except EngineDeadError as error:
            raise EngineDied(
                f"its engine died; for the cause see {os.readlink('/proc/self/fd/2')}"
            ) from error
