"""Every setting, with its default, meaning and bounds. Imports neither torch, Ray nor vLLM."""

from dataclasses import dataclass, field
from typing import Any

from megatron_trace.config.choices import (
    BudgetUnit,
    FP8Format,
    FP8Recipe,
    Precision,
    Recompute,
    Thoughts,
    WeightBackend,
)
from megatron_trace.config.learning import LearningConfig
from megatron_trace.config.setting import setting


@dataclass
class RunConfig:
    """Name, length and outputs of the run."""

    name: str = setting("trace", "name of the run; results go to <directory>/<name>")
    directory: str = setting("runs", "folder of all runs")
    seed: int = setting(
        0,
        "the one seed; every random generator is derived from it by name",
        at_least=0,
        below=1e18,
    )
    steps: int = setting(
        100,
        "training steps; each samples new trees and makes learning.batching.updates_per_step x "
        "learning.batching.epochs optimizer updates",
        at_least=1,
    )
    rollouts: int | None = setting(
        None,
        "sampling budget of the whole run: the run ends with the step that reaches this number of "
        "rollouts; "
        "null: only run.steps counts",
        at_least=1,
    )
    save_trees: bool = setting(True, "keep every step's trees, for reports and --replay")
    loggers: list[str] = setting(
        ["tensorboard"],
        "where the metrics go beside metrics.jsonl; a logger that fails is switched off",
        one_of=("tensorboard", "wandb", "mlflow"),
    )


@dataclass
class ModelConfig:
    """The start policy."""

    path: str = setting(
        "", "start policy: a HF folder (config, tokenizer, safetensors) or a checkpoint"
    )


@dataclass
class ParallelConfig:
    """Parallel layout of the train ranks, in Megatron-Core's terms."""

    tensor: int = setting(1, "tensor-parallel size of the train ranks", at_least=1)
    sequence: bool | None = setting(
        None,
        "sequence parallelism over the tensor-parallel ranks; null: on where parallel.tensor > 1",
    )
    pipeline: int = setting(1, "pipeline-parallel size of the train ranks", at_least=1)
    interleave: int = setting(
        1,
        "model chunks in each pipeline stage (interleaved schedule); 1: not interleaved",
        at_least=1,
    )
    context: int = setting(
        1, "context-parallel size: the number of ranks that share a sequence", at_least=1
    )
    expert: int = setting(1, "expert-parallel size of the train ranks (MoE models)", at_least=1)
    expert_tensor: int | None = setting(
        None, "tensor-parallel size of the experts (MoE models); null: parallel.tensor", at_least=1
    )
    overlap_grad_reduce: bool = setting(False, "reduce gradients during the backward pass")
    overlap_param_gather: bool = setting(
        False, "gather the updated weights during the next forward pass"
    )


@dataclass
class PrecisionConfig:
    """Number formats of training and sampling."""

    train: Precision = setting(
        Precision.bf16, "float32, bf16 or fp8 (Transformer Engine on Hopper or newer)"
    )
    fp8_recipe: FP8Recipe = setting(
        FP8Recipe.tensorwise, "Transformer Engine recipe: tensorwise, delayed, blockwise or mxfp8"
    )
    fp8_format: FP8Format = setting(
        FP8Format.hybrid, "hybrid (E4M3 forward, E5M2 for gradients) or e4m3 (both)"
    )
    fp8_amax_history: int = setting(
        1024, "steps for which the delayed recipe keeps the largest values", at_least=1
    )
    fp8_amax_algorithm: str = setting(
        "max",
        "which value of that history sets the scale of the delayed recipe",
        one_of=("max", "most_recent"),
    )
    fp8_first_layers_bf16: int = setting(
        0, "number of first layers of the model that stay bf16", at_least=0
    )
    fp8_last_layers_bf16: int = setting(
        0, "number of last layers of the model that stay bf16", at_least=0
    )
    fp8_param_gather: bool = setting(
        False, "keep and gather the weights in FP8; the optimizer keeps float32 copies"
    )
    rollout: str = setting(
        "bfloat16", "dtype of the fleet's engines", one_of=("float32", "bfloat16", "float16")
    )


@dataclass
class RecomputeConfig:
    """Activation recomputation."""

    granularity: Recompute = setting(
        Recompute.none,
        "activations that the backward pass recomputes: none, selective (of some modules) or full",
    )
    modules: list[str] = setting(
        ["core_attn"],
        "modules of selective recomputation",
        one_of=("core_attn", "layernorm", "mlp", "moe_act", "moe"),
    )
    method: str = setting(
        "uniform",
        "full recomputation: uniform (every chunk of layers) or block (the first layers of a "
        "stage)",
        one_of=("uniform", "block"),
    )
    layers: int = setting(
        1,
        "full recomputation: layers of a uniform chunk, or layers of a stage that recompute "
        "(block)",
        at_least=1,
    )


@dataclass
class DataConfig:
    """Tasks."""

    # Files, or name -> files, or name -> {files, weight, map}: `sources.py` reads it.
    train: Any = setting(
        "",
        "training tasks: .tar (WebDataset), .jsonl, .jsonl.gz or .parquet files, or a folder that "
        "the package datasets saved (path, glob, brace pattern or URL); or name -> {files, weight, "
        "map} of several sources, from which tasks are drawn in proportion to the weights",
        files=True,
    )
    heldout: dict[str, Any] = setting(
        {},
        "name -> files of each held-out set, of the same kinds, or name -> {files, map}",
        files=True,
    )
    map: str | None = setting(
        None,
        "FILE.py:FUNCTION that makes a task of a row: it takes and returns a dict, or None to leave "
        "the row out; null: rows are tasks. A source or a held-out set may name its own",
    )
    on_bad: str = setting(
        "error",
        "tasks that cannot be read or played: error (the run does not start) or skip (they are "
        "left out and counted)",
        one_of=("error", "skip"),
    )


@dataclass
class EnvironmentConfig:
    """The environment in which the agent acts."""

    name: str = setting(
        "search_qa", "environment of the tasks: a file of megatron_trace/envs/builtin, or FILE.py"
    )
    max_turns: int = setting(
        6, "largest number of turns; an episode without an answer by then fails", at_least=1
    )
    options: dict[str, Any] = setting(
        {},
        "environment -> options of that environment (environment.options.search_qa.top_k=1)",
    )
    chat_template: dict[str, Any] = setting(
        {},
        "what the model's chat template is given, such as {enable_thinking: false} for Qwen3",
    )
    renderer: str = setting(
        "auto",
        "rules by which a chat's messages become token ids: a family of the package renderers "
        "(qwen3, llama-3, ...); template: the model's chat template; auto: the family that writes "
        "what the template writes, else the template",
    )
    thoughts: Thoughts = setting(
        Thoughts.keep,
        "what later prompts of a chat have of a turn's thought (<think> … </think>): keep all of it "
        "or strip it; stripped, a rollout is several sequences for the trainer",
    )
    step_timeout_s: float | None = setting(
        600.0,
        "seconds that a step of the environment may take, or its reset; then the rollout fails; "
        "null: no limit",
        above=0,
    )
    task_timeout_s: float | None = setting(
        None,
        "seconds that the reset and all steps of a rollout may take together, without sampling; then "
        "the rollout fails; null: no limit",
        above=0,
    )
    calls: int = setting(
        32,
        "most resets and steps that run at the same time in a worker, each in a thread",
        at_least=1,
    )
    retries: int = setting(
        2,
        "how often a step is tried again after an error that the environment calls retryable",
        at_least=0,
    )


@dataclass
class AllocationConfig:
    """How a step's sampling budget is spent on anchors."""

    strategy: str = setting(
        "trace",
        "allocation strategy: a file of megatron_trace/allocation/strategies, or FILE.py",
    )
    unit: BudgetUnit = setting(
        BudgetUnit.rollouts,
        "what the budget counts: rollouts (a continuation is one) or sampled tokens",
    )
    budget: int = setting(256, "a step's sampling budget, in allocation.unit", at_least=1)
    expected_tokens: int = setting(
        256,
        "expected sampled tokens of a rollout, used until the first rollout has ended (unit "
        "tokens)",
        at_least=1,
    )
    pool: int = setting(
        128, "candidate tasks per step, for strategies that choose among tasks", at_least=1
    )
    group: int = setting(
        8,
        "rollouts of a task, continuations included, for strategies that treat all tasks alike",
        at_least=1,
    )
    bare_share: float | None = setting(
        None,
        "share of the budget for bare rollouts, the rest is for continuations (strategies that "
        "branch, but trace, which decides by its beliefs); null: the strategy's own",
        above=0,
        at_most=1,
    )
    calibrate: bool = setting(
        True,
        "for the allocation, fit a temperature and a shift of the predictions to the last steps' "
        "outcomes (trace fits its beliefs in any case)",
    )
    prior_rollouts: float = setting(
        0.0,
        "pseudo-count of the running mean success rate: predictions are shrunk towards it until "
        "that many outcomes "
        "have been seen",
        at_least=0,
    )
    merge: bool = setting(
        False,
        "rollouts of a task with the same actions and observations so far share these turns: the "
        "strategy sees one anchor, and what all of them tell about it",
    )
    options: dict[str, Any] = setting(
        {},
        "strategy -> options of that strategy (allocation.options.trace.probe=4)",
    )


@dataclass
class RolloutConfig:
    """The fleet: vLLM engines in Ray actors."""

    workers: int = setting(1, "Ray actors; each has one vLLM engine", at_least=1)
    tensor_parallel: int = setting(1, "tensor-parallel size of one engine", at_least=1)
    # vLLM samples at 0.01 where it is asked for less, and the trainer would not know.
    temperature: float = setting(1.0, "sampling temperature", at_least=0.01)
    max_turn_tokens: int = setting(512, "most sampled tokens of one turn", at_least=1)
    max_history_tokens: int = setting(
        8192, "most tokens of a whole rollout, prompt included", at_least=1
    )
    concurrency: int = setting(256, "live rollouts per engine", at_least=1)
    memory: float = setting(
        0.85, "share of the GPU's memory that an engine may use", above=0, at_most=1
    )
    cpu_cache_gib: int = setting(2, "key-value cache of an engine on the CPU, in GiB", at_least=1)
    block_size: int | None = setting(
        None,
        "tokens of a cache block, a multiple of 16; only whole blocks are served from the cache; "
        "null: the smallest that costs no speed",
        at_least=16,
    )
    eager: bool = setting(False, "no graph capture in vLLM")
    weight_backend: WeightBackend = setting(
        WeightBackend.nccl, "ray: through the object store; nccl: GPU to GPU"
    )
    max_restarts: int = setting(3, "restarts of one worker before the run stops", at_least=0)
    ray_address: str | None = setting(None, "Ray cluster to join; null: start one on this machine")


@dataclass
class StopConfig:
    """When a run ends by itself, and how long its end may take."""

    logprob_gap: float | None = setting(
        None,
        "stop when the mean |Δ log-probability| between sampler and trainer exceeds this",
        at_least=0,
    )
    kl: float | None = setting(
        None,
        "stop when the KL of one step's updates exceeds this; it is 0 with updates_per_step = 1 "
        "and epochs = 1",
        at_least=0,
    )
    gradient_norm: float | None = setting(
        None, "stop when the gradient norm exceeds this", at_least=0
    )
    malformed: float | None = setting(
        None, "stop when the share of malformed turns exceeds this", at_least=0
    )
    failed: float | None = setting(
        0.25,
        "stop when the share of a step's rollouts, or of its tasks, that fail by an error of the "
        "environment exceeds this; null: when all fail",
        at_least=0,
        at_most=1,
    )
    entropy_below: float | None = setting(
        None, "stop when the token entropy falls below this, in nats", at_least=0
    )
    time_limit_min: float | None = setting(
        None,
        "time limit of the run in minutes; the run saves a checkpoint stop.grace_s before it",
        above=0,
    )
    hang_s: float | None = setting(
        1800.0,
        "seconds without progress after which all stacks are printed and the run ends; null: wait "
        "for ever",
        above=0,
    )
    grace_s: float = setting(
        25.0,
        "seconds to save and end after Ctrl-C, SIGTERM or a hang; then the run is killed; "
        "torchrun itself kills it "
        "after 30 (--shutdown-timeout)",
        above=0,
    )


@dataclass
class EvaluationConfig:
    """Evaluation on held-out tasks."""

    every: int = setting(
        10,
        "steps between evaluations; the first and last policy are always evaluated; 0: never",
        at_least=0,
    )
    tasks: int = setting(128, "tasks taken from each held-out set", at_least=1)
    rollouts: int = setting(
        1,
        "rollouts of each of these tasks: success is their mean (avg@k); above 1 pass@k is "
        "reported too",
        at_least=1,
    )


@dataclass
class CheckpointConfig:
    """Checkpoints, exports and resume."""

    every: int = setting(
        10,
        "steps between checkpoints; the last step is always saved; 0: no checkpoint at all",
        at_least=0,
    )
    keep_last: int = setting(2, "number of newest checkpoints that are kept", at_least=1)
    keep_every: int = setting(
        0,
        "also keep the checkpoint of every n-th step, where n is this number; 0: of none",
        at_least=0,
    )
    export_hf_every: int = setting(
        0, "steps between exports of the policy as a HF folder; 0: only at the end", at_least=0
    )
    resume: bool = setting(
        True,
        "continue an unfinished run of this name; false: move it aside and start from the "
        "beginning",
    )


@dataclass
class Config:
    """All settings of a run."""

    run: RunConfig = field(default_factory=RunConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    precision: PrecisionConfig = field(default_factory=PrecisionConfig)
    recompute: RecomputeConfig = field(default_factory=RecomputeConfig)
    data: DataConfig = field(default_factory=DataConfig)
    environment: EnvironmentConfig = field(default_factory=EnvironmentConfig)
    allocation: AllocationConfig = field(default_factory=AllocationConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    learning: LearningConfig = field(default_factory=LearningConfig)
    stop: StopConfig = field(default_factory=StopConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
