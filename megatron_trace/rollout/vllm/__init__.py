"""All that depends on the version of vLLM (0.32). To move to another version, read this folder.

Files:
    launch.py           environment variables and `AsyncEngineArgs` of an engine
    engine.py           `VLLMEngine`: sampling, prefix cache, receiving weights (`rollout/engine.py`
                        is the protocol that it implements)
    model.py            the model families with the predictor head, and the methods that vLLM mixes
                        into its worker processes
    cpu_attention.py    cache blocks of 16 tokens on the CPU
    cpu_kernels.py      faster RMSNorm and lookup of log-probabilities on the CPU
    carriers.py         two logits after the vocabulary that bring predictions and entropies back
    weight_transfer.py  the engine's end of weights that come through Ray's object store
    nccl.py             rank 0's end of weights by NCCL

What is relied on, beside the documented interfaces of `AsyncLLM` and `SamplingParams`:
    engine.py           `logprob_token_ids` with `flat_logprobs`: a sampled token's own value comes
                        first, then those of the two carriers, in this order;
                        `CompletionOutput.weight_versions`, the spans of tokens by version;
                        `cache_salt` in a prompt; `EngineDeadError` in `vllm.v1.engine.exceptions`;
                        `start_weight_update`, `update_weights`, `finish_weight_update`,
                        `update_weight_version`, `init_weight_transfer_engine`, `collective_rpc`
    launch.py           the VLLM_* variables for a CPU; `logprobs_mode="processed_logprobs"`;
                        `additional_config` reaches the model's constructor; the sampler and the
                        checks of a request take the number of tokens from
                        `model_config.model_arch_config`, the model takes it from `hf_config`
    model.py            `compute_logits` is the last that a model does before sampling; subclasses
                        of the model classes replace them in `ModelRegistry`; `model_runner` and
                        `device` of a worker; for MoE on a CPU `RoutedExperts.quant_method.moe_kernel`
    cpu_attention.py    `register_backend` replaces `CPU_ATTN`; its kernel `vec16`
    cpu_kernels.py      `register_oot` replaces `RMSNorm`; its kernels in `torch.ops._C`;
                        `Sampler.gather_specific_token_logprobs`
    weight_transfer.py  `WeightTransferEngine` and `model_loader.reload` (layerwise)
    nccl.py             `WeightTransferTrainerFactory`, `NCCLTrainerInitInfo`, `WeightSource`

What else of this project vLLM sees: the engine's process is spawned, and imports `model.py` by its
name. So `megatron_trace/rollout/__init__.py` must stay empty, or environments are loaded there too.

One fact about vLLM stands in a room below this one, which cannot import it: the beginning of the
names of its shared memory, in `supervise/leftovers.py`.
"""
