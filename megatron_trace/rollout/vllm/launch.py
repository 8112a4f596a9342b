"""How a vLLM engine is started: environment variables and engine arguments."""

import glob
import os
from typing import TYPE_CHECKING, Any

from megatron_trace.config import Config
from megatron_trace.models.cuda_memory import fix_segments
from megatron_trace.rollout.vllm.carriers import CARRIERS
from megatron_trace.tree import Requires

if TYPE_CHECKING:
    from vllm.config import ModelConfig
    from vllm.v1.engine.async_llm import AsyncLLM

CPU_BATCH_TOKENS = 4096
"""Most tokens of one engine step on the CPU, unless a single history is longer."""

READY_TIMEOUT_S = 1500
"""Longest start of an engine, in s. vLLM's own 600 are too few for a cold file system and a cold
compile cache. Less than the default of `stop.hang_s`, so that vLLM's message comes first.
"""

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
TORCHRUN_PREFIXES = ("TORCHELASTIC_", "ROLE_", "GROUP_")
"""Environment variables by which torchrun tells its processes who they are."""


def launch(config: Config, model_path: str, gpu: bool, requires: frozenset[Requires]) -> "AsyncLLM":
    """Load the model and start the engine's process; needs a running event loop."""
    forget_torchrun()
    fix_segments()
    os.environ.update(engine_environment(config, gpu))
    # vLLM reads its environment variables while it is imported, so not before here.
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.async_llm import AsyncLLM

    arguments = AsyncEngineArgs(**engine_arguments(config, model_path, gpu, requires))
    # As `AsyncLLM.from_engine_args`, with a change in between.
    engine_config = arguments.create_engine_config(UsageContext.ENGINE_CONTEXT)
    make_room_for_carriers(engine_config.model_config)
    return AsyncLLM.from_vllm_config(
        engine_config,
        usage_context=UsageContext.ENGINE_CONTEXT,
        disable_log_stats=arguments.disable_log_stats,
    )


def make_room_for_carriers(model_config: "ModelConfig") -> None:
    """Let vLLM's sampler, and its check of `logprob_token_ids`, count the carriers as tokens.

    The model is built from `model_config.hf_config`, which still counts the model's tokens alone.
    """
    model_config.model_arch_config.vocab_size += CARRIERS


def forget_torchrun() -> None:
    """Drop torchrun's variables, which a Ray that rank 0 started hands to its actors.

    With them vLLM's own process group would look for torchrun's store, and never find it.
    """
    for name in list(os.environ):
        if name in TORCHRUN or name.startswith(TORCHRUN_PREFIXES):
            del os.environ[name]


def engine_environment(config: Config, gpu: bool) -> dict[str, str]:
    """Environment variables of a process that runs vLLM."""
    common = {
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
    }
    if config.rollout.ray_address is None:
        # The engines' processes are all on this machine.
        common["VLLM_HOST_IP"] = "127.0.0.1"
    if gpu:
        timeout = os.environ.get("VLLM_ENGINE_READY_TIMEOUT_S", str(READY_TIMEOUT_S))
        return common | {"VLLM_ENGINE_READY_TIMEOUT_S": timeout}
    # A core is left to the actor: with as many busy OpenMP threads as cores, small models run ten
    # times slower.
    threads = max(1, ((os.cpu_count() or 1) - 1) // config.rollout.workers)
    return common | {
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "VLLM_CPU_KVCACHE_SPACE": str(config.rollout.cpu_cache_gib),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        # The model runs in the engine's process: one process fewer to start.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        # Compiling the sampler's one small function takes longer than it ever saves.
        "TORCH_COMPILE_DISABLE": "1",
    }


def engine_arguments(
    config: Config, model_path: str, gpu: bool, requires: frozenset[Requires]
) -> dict[str, Any]:
    """Arguments of vLLM's `AsyncEngineArgs`."""
    from vllm.config import WeightTransferConfig

    # The import registers the model families and the object store's weight transfer with vLLM.
    from megatron_trace.rollout.vllm.model import PolicyWorkerExtension

    rollout = config.rollout
    # A checkpoint's folder holds no safetensors: the trainer sends the weights before any rollout.
    has_weights = bool(glob.glob(f"{model_path}/*.safetensors"))
    extension = f"{PolicyWorkerExtension.__module__}.{PolicyWorkerExtension.__qualname__}"
    arguments = {
        "model": model_path,
        "load_format": "auto" if has_weights else "dummy",
        "dtype": config.precision.rollout,
        "max_model_len": rollout.max_history_tokens,
        "max_num_seqs": rollout.concurrency,
        "tensor_parallel_size": rollout.tensor_parallel,
        "gpu_memory_utilization": rollout.memory,
        "block_size": rollout.block_size,
        "enforce_eager": rollout.eager or not gpu,
        "enable_prefix_caching": True,
        # Log-probabilities of the distribution that is sampled from, temperature included.
        "logprobs_mode": "processed_logprobs",
        "weight_transfer_config": WeightTransferConfig(backend=rollout.weight_backend.value),
        "worker_extension_cls": extension,
        "additional_config": {
            "temperature": rollout.temperature,
            "entropies": Requires.entropies in requires,
        },
        "disable_log_stats": True,
    }
    if not gpu:
        from megatron_trace.rollout.vllm.cpu_attention import cpu_block_size

        # vLLM cuts a prefill in two and steps its random generators back in between, which those
        # of the CPU cannot do. So a prefill must fit into one step.
        longest = max(CPU_BATCH_TOKENS, rollout.max_history_tokens)
        arguments |= {"enable_chunked_prefill": False, "max_num_batched_tokens": longest}
        arguments["block_size"] = cpu_block_size(rollout.block_size, config.precision.rollout)
    return arguments
