"""A vLLM engine that samples turns, each with the prediction for the history before it."""

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from megatron_trace.config import Config
from megatron_trace.rollout.engine import EngineDied, Generation
from megatron_trace.rollout.turns import Stop
from megatron_trace.rollout.vllm.carriers import CARRIERS, read_entropies, read_prediction
from megatron_trace.rollout.vllm.launch import launch
from megatron_trace.rollout.weights import Chunk
from megatron_trace.tree import Requires

if TYPE_CHECKING:
    from vllm.outputs import CompletionOutput, RequestOutput
    from vllm.sampling_params import SamplingParams
    from vllm.v1.engine.async_llm import AsyncLLM


class VLLMEngine:
    """An `AsyncLLM` with the policy and its predictor head; see `rollout.engine.Engine`."""

    def __init__(
        self,
        llm: "AsyncLLM",
        temperature: float,
        stop: Stop,
        requires: frozenset[Requires],
    ) -> None:
        """Wrap a running `llm`; `stop` is what ends a turn."""
        self.llm = llm
        self._requires = requires
        self._temperature = temperature
        self._version = 0
        self._updating = False
        self._request_ids = itertools.count()
        # The model's own number of tokens; `llm.model_config.get_vocab_size()` counts the carriers.
        vocabulary = llm.model_config.hf_text_config.vocab_size
        self._carriers = list(range(vocabulary, vocabulary + CARRIERS))
        self._stop = stop

    @classmethod
    def start(
        cls,
        config: Config,
        model_path: str,
        stop: Stop,
        gpu: bool,
        requires: frozenset[Requires],
    ) -> "VLLMEngine":
        """Load the model and start the engine's process; see `rollout.engine.EngineStarter`."""
        llm = launch(config, model_path, gpu, requires)
        return cls(llm, config.rollout.temperature, stop, requires)

    async def generate(self, prompt_ids: list[int], *, max_tokens: int, seed: int) -> Generation:
        """Sample after `prompt_ids` until a stop, at most `max_tokens` tokens."""
        from vllm.inputs import TokensPrompt

        params = self._sampling_params(max_tokens, seed)
        # The version is part of a cached block's key: no block of another version is ever served.
        prompt = TokensPrompt(prompt_token_ids=prompt_ids, cache_salt=f"version {self._version}")
        request_id = str(next(self._request_ids))
        with engine_deaths():
            async for output in self.llm.generate(prompt, params, request_id=request_id):
                final = output
        return self._generation(final)

    async def embed(self, prompts: list[list[int]]) -> list[list[float]]:
        """Mean of the policy's input embeddings over each prompt's tokens, [prompts, hidden]."""
        with engine_deaths():
            of_ranks = await self.llm.collective_rpc("embed_prompts", args=(prompts,))
        # All tensor-parallel ranks have the same.
        return of_ranks[0]

    async def ping(self) -> None:
        """Return when every process of the engine has answered."""
        await self._take_fingerprint()

    async def join_trainer(self, init_info: dict[str, Any]) -> None:
        """Join the trainer's NCCL group; `init_info` comes from vLLM's trainer side."""
        from vllm.distributed.weight_transfer.base import WeightTransferInitRequest

        with engine_deaths():
            await self.llm.init_weight_transfer_engine(WeightTransferInitRequest(init_info))

    async def start_update(self) -> None:
        """Make the layers ready to be loaded. A second call before `finish_update` does nothing."""
        # The first call stands where the update was called off: another worker had died.
        if self._updating:
            return
        self._updating = True
        # The fingerprint then starts at 0, without what was loaded before.
        await self._take_fingerprint()
        with engine_deaths():
            await self.llm.start_weight_update()

    async def load_chunk(self, chunk: Chunk) -> None:
        """Load some tensors through `RayWeightTransferEngine`."""
        # vLLM's messages to the engine's process carry bytes, and no arrays of any size.
        data = [array.tobytes() for array in chunk.data]
        await self.receive({**vars(chunk), "data": data})

    async def receive(self, update_info: dict[str, Any]) -> None:
        """Load a part of the weights; `update_info` is what the weight-transfer backend takes."""
        from vllm.distributed.weight_transfer.base import WeightTransferUpdateRequest

        with engine_deaths():
            await self.llm.update_weights(WeightTransferUpdateRequest(update_info))

    async def finish_update(self) -> int:
        """All tensors have come; returns the fingerprint of all since `start_update`.

        Raises:
            RuntimeError: the tensor-parallel ranks received different weights.
        """
        with engine_deaths():
            await self.llm.finish_weight_update()
        self._updating = False
        return await self._take_fingerprint()

    async def set_version(self, version: int) -> None:
        """Label sampled tokens with `version` from now on, and drop all cached histories.

        Raises:
            RuntimeError: rollouts are running.
        """
        with engine_deaths():
            await self.llm.update_weight_version(str(version))
            self._version = version
            dropped = await self.llm.reset_prefix_cache()
        if not dropped:
            raise RuntimeError(
                "the prefix cache is in use: weights were updated while rollouts were running"
            )

    def stop(self) -> None:
        """End the engine's process, its sockets and semaphores. Blocks until it is gone."""
        self.llm.shutdown()

    async def _take_fingerprint(self) -> int:
        """Fingerprint of all weights loaded since the last call."""
        with engine_deaths():
            received = set(await self.llm.collective_rpc("take_fingerprint"))
        if len(received) > 1:
            raise RuntimeError("the ranks of one engine received different weights")
        return received.pop()

    def _sampling_params(self, max_tokens: int, seed: int) -> "SamplingParams":
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        return SamplingParams(
            temperature=self._temperature,
            seed=seed,
            max_tokens=max_tokens,
            stop_token_ids=self._stop.ids,
            stop=self._stop.texts,
            include_stop_str_in_output=True,
            detokenize=bool(self._stop.texts),
            skip_special_tokens=False,
            logprob_token_ids=self._carriers,
            flat_logprobs=True,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    def _generation(self, output: "RequestOutput") -> Generation:
        completion = output.outputs[0]
        # Flat: for each sampled token its own log-probability, then those of the two carriers.
        flat = completion.logprobs.logprobs
        own, first, second = flat[0::3], flat[1::3], flat[2::3]
        entropies: list[float] = []
        if Requires.entropies in self._requires:
            entropies = read_entropies(first)
        return Generation(
            token_ids=list(completion.token_ids),
            logprobs=own,
            versions=_versions(completion),
            prediction=read_prediction(first[0], second[0]),
            truncated=completion.finish_reason == "length",
            cached_tokens=output.num_cached_tokens or 0,
            entropies=entropies,
        )


@contextmanager
def engine_deaths() -> Iterator[None]:
    """Turn vLLM's exception for a dead engine into `EngineDied`."""
    from vllm.v1.engine.exceptions import EngineDeadError

    try:
        yield
    except EngineDeadError as error:
        log = os.readlink("/proc/self/fd/2")
        raise EngineDied(f"its engine died; for the cause see {log}") from error


def _versions(completion: "CompletionOutput") -> list[int]:
    """Policy version of every token: vLLM reports the span of tokens that each version sampled."""
    versions = []
    for span in completion.weight_versions:
        versions += [int(span.version)] * (span.end - span.start)
    return versions
