"""A vLLM engine that samples turns, each with the prediction for the history before it."""

import glob
import itertools
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from megatron_trace.config import Config
from megatron_trace.models.reserved import read_entropies, read_prediction
from megatron_trace.rollout.agent import Generation
from megatron_trace.tree import Need

if TYPE_CHECKING:
    from vllm.outputs import CompletionOutput, RequestOutput
    from vllm.v1.engine.async_llm import AsyncLLM

CPU_BATCH_TOKENS = 4096
"""Most tokens of one engine step on the CPU."""

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def engine_environment(config: Config, gpu: bool) -> dict[str, str]:
    """Environment variables of a process that runs vLLM."""
    common = {
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
    }
    if gpu:
        return common
    # A core is left to the actor: with as many busy OpenMP threads as cores, small models run ten times slower.
    threads = max(1, ((os.cpu_count() or 1) - 1) // config.rollout.workers)
    return (
        common
        | {
            "OMP_NUM_THREADS": str(threads),
            "OMP_WAIT_POLICY": "PASSIVE",
            "VLLM_CPU_KVCACHE_SPACE": str(config.rollout.cpu_cache_gib),
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the model runs in the engine's process: one process fewer to start
            "TORCH_COMPILE_DISABLE": "1",  # compiling the sampler's one small function takes longer than it ever saves
        }
    )


def forget_torchrun() -> None:
    """Drop the variables by which torchrun tells its processes who they are: a Ray started there passes them on.

    With them vLLM's own process group would look for torchrun's store, and wait for ever.
    """
    for name in list(os.environ):
        if name.startswith(("TORCHELASTIC_", "ROLE_", "GROUP_")) or name in TORCHRUN:
            del os.environ[name]


class Engine:
    """An `AsyncLLM` with the policy and its predictor head."""

    def __init__(
        self,
        llm: "AsyncLLM",
        config: Config,
        stop: Sequence[str],
        needs: frozenset[Need] = frozenset(),
    ) -> None:
        """Wrap a running `llm`; `stop` are the strings that end a turn."""
        self.llm = llm
        self.needs = needs
        self.tokenizer = llm.get_tokenizer()
        self.version = 0
        self._temperature = config.rollout.temperature
        vocabulary = llm.model_config.get_vocab_size()
        self._reserved = [vocabulary - 2, vocabulary - 1]
        self._names = itertools.count()
        ids = [self.tokenizer.encode(text, add_special_tokens=False) for text in stop]
        self._stop_ids = [token[0] for token in ids if len(token) == 1]
        self._stop_texts = [text for text, token in zip(stop, ids, strict=True) if len(token) != 1]

    @classmethod
    def start(
        cls,
        config: Config,
        model_path: str,
        stop: Sequence[str],
        gpu: bool,
        needs: frozenset[Need] = frozenset(),
    ) -> "Engine":
        """Load the model and start the engine's process; needs a running event loop."""
        forget_torchrun()
        os.environ.update(engine_environment(config, gpu))
        from vllm.config import WeightTransferConfig
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        from megatron_trace.rollout.vllm.model import PolicyWorkerExtension

        extension = f"{PolicyWorkerExtension.__module__}.{PolicyWorkerExtension.__qualname__}"
        prefill: dict[str, Any] = {}
        if not gpu:  # its random generators cannot step back, as vLLM wants them to where it cuts a prefill in two
            prefill["enable_chunked_prefill"] = False
            prefill["max_num_batched_tokens"] = max(
                CPU_BATCH_TOKENS, config.rollout.max_history_tokens
            )
        arguments = AsyncEngineArgs(
            model=model_path,
            # A checkpoint's folder holds no safetensors: the trainer sends the weights before anything is sampled.
            load_format="auto" if glob.glob(f"{model_path}/*.safetensors") else "dummy",
            dtype=config.precision.rollout,
            max_model_len=config.rollout.max_history_tokens,
            max_num_seqs=config.rollout.concurrency,
            tensor_parallel_size=config.rollout.tensor_parallel,
            gpu_memory_utilization=config.rollout.memory,
            block_size=config.rollout.block_size,
            enforce_eager=config.rollout.eager or not gpu,
            enable_prefix_caching=True,
            logprobs_mode="processed_logprobs",
            weight_transfer_config=WeightTransferConfig(
                backend=config.rollout.weight_backend.value
            ),
            worker_extension_cls=extension,
            additional_config={
                "predictor_hidden": config.learning.predictor_hidden,
                "entropy_temperature": config.rollout.temperature
                if Need.entropies in needs
                else None,
            },
            disable_log_stats=True,
            **prefill,
        )
        return cls(AsyncLLM.from_engine_args(arguments), config, stop, needs)

    async def set_version(self, version: int) -> None:
        """Label tokens with `version` from now on, and forget all cached histories.

        Raises:
            RuntimeError: rollouts are running.
        """
        await self.llm.update_weight_version(str(version))
        self.version = version
        if not await self.llm.reset_prefix_cache():
            raise RuntimeError(
                "the prefix cache is in use: weights were updated while rollouts were running"
            )

    async def take_fingerprint(self) -> int:
        """Fingerprint of all weights loaded since the last call.

        Raises:
            RuntimeError: the tensor-parallel ranks received different weights.
        """
        received = set(await self.llm.collective_rpc("take_fingerprint"))
        if len(received) > 1:
            raise RuntimeError("the ranks of one engine received different weights")
        return received.pop()

    async def embed(self, prompts: list[list[int]]) -> list[list[float]]:
        """Mean of the policy's input embeddings over each prompt's tokens, [prompts, hidden]."""
        return (await self.llm.collective_rpc("embed_prompts", args=(prompts,)))[
            0
        ]  # all ranks have the same

    async def generate(self, prompt_ids: list[int], *, max_tokens: int, seed: int) -> Generation:
        """Sample until a stop; see `agent.Generate`."""
        from vllm.inputs import TokensPrompt
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        params = SamplingParams(
            temperature=self._temperature,
            seed=seed,
            max_tokens=max_tokens,
            stop_token_ids=self._stop_ids,
            stop=self._stop_texts,
            include_stop_str_in_output=True,
            detokenize=bool(self._stop_texts),
            skip_special_tokens=False,
            logprob_token_ids=self._reserved,
            flat_logprobs=True,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        prompt = TokensPrompt(prompt_token_ids=prompt_ids, cache_salt=f"version {self.version}")
        async for output in self.llm.generate(prompt, params, request_id=str(next(self._names))):
            final = output
        return self._generation(final)

    def _generation(self, output: "RequestOutput") -> Generation:
        completion = output.outputs[0]
        logprobs = (
            completion.logprobs.logprobs
        )  # three for each token: its own and those of the reserved two
        first, second = logprobs[1::3], logprobs[2::3]
        entropies = read_entropies(first, self._temperature) if Need.entropies in self.needs else []
        return Generation(
            token_ids=list(completion.token_ids),
            logprobs=logprobs[0::3],
            versions=_versions(completion),
            prediction=read_prediction(first[0], second[0], self._temperature),
            truncated=completion.finish_reason == "length",
            cached_tokens=output.num_cached_tokens or 0,
            entropies=entropies,
        )


def _versions(completion: "CompletionOutput") -> list[int]:
    """Policy version of every token: the engine notes the span that each version sampled."""
    return [
        int(span.version)
        for span in completion.weight_versions
        for _ in range(span.start, span.end)
    ]
