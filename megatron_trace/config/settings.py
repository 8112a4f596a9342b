"""Every setting, with its default and meaning. Imports without torch, Ray or vLLM."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Precision(Enum):
    """Arithmetic of the policy's training."""

    float32 = "float32"
    bf16 = "bf16"
    fp8 = "fp8"


class FP8Recipe(Enum):
    """How Transformer Engine scales to FP8."""

    delayed = "delayed"
    tensorwise = "tensorwise"
    blockwise = "blockwise"
    mxfp8 = "mxfp8"


class FP8Format(Enum):
    """Which FP8 numbers."""

    hybrid = "hybrid"
    e4m3 = "e4m3"


class Recompute(Enum):
    """Which activations the backward pass computes anew."""

    none = "none"
    selective = "selective"
    full = "full"


class ContextExchange(Enum):
    """How context-parallel ranks exchange keys and values."""

    p2p = "p2p"
    all_gather = "all_gather"
    a2a = "a2a"


class Decay(Enum):
    """How the learning rates fall after warm-up."""

    constant = "constant"
    linear = "linear"
    cosine = "cosine"


class Backup(Enum):
    """Which leaves make the backed-up success rate of a turn."""

    leaf_weighted = "leaf_weighted"
    unbiased = "unbiased"


class Ratio(Enum):
    """Over what the ratio of current to old policy is taken."""

    token = "token"
    turn = "turn"
    sequence = "sequence"


class Aggregation(Enum):
    """How token losses become one loss."""

    token = "token"
    sequence = "sequence"
    dr_grpo = "dr_grpo"


class Importance(Enum):
    """What becomes of the trainer/sampler importance weights."""

    none = "none"
    truncate = "truncate"
    mask = "mask"


class BudgetUnit(Enum):
    """What the sampling budget counts."""

    rollouts = "rollouts"
    tokens = "tokens"


class WeightBackend(Enum):
    """How weights travel from the train ranks to the fleet."""

    ray = "ray"
    nccl = "nccl"


def setting(default: Any, meaning: str) -> Any:
    """A dataclass field with its meaning, which `--help` prints."""
    metadata = {"meaning": meaning}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class RunConfig:
    name: str = setting("trace", "name of the run; results go to <directory>/<name>")
    directory: str = setting("runs", "folder of all runs")
    seed: int = setting(0, "the one seed from which all randomness is split by name")
    steps: int = setting(
        100,
        "steps to train: each samples anew and makes learning.updates_per_step x learning.epochs optimizer updates",
    )
    rollouts: int | None = setting(
        None,
        "sampling budget of the whole run: it ends with the step that reaches so many; null: only steps count",
    )
    save_trees: bool = setting(True, "keep every step's trees, for reports and --replay")
    loggers: list[str] = setting(
        ["tensorboard"],
        "where the numbers go beside metrics.jsonl, any of tensorboard, wandb, mlflow; one that fails is switched off",
    )


@dataclass
class ModelConfig:
    path: str = setting(
        "", "start policy: a HF folder (config, tokenizer, safetensors) or a checkpoint"
    )


@dataclass
class ParallelConfig:
    tensor: int = setting(1, "tensor-parallel size of the train ranks")
    sequence: bool | None = setting(
        None, "sequence parallelism over the tensor-parallel ranks; null: where parallel.tensor > 1"
    )
    pipeline: int = setting(1, "pipeline-parallel size of the train ranks")
    interleave: int = setting(
        1, "parts of the model in each pipeline stage (interleaved schedule); 1: none"
    )
    context: int = setting(1, "context-parallel size: ranks among which every sequence is split")
    context_exchange: ContextExchange = setting(
        ContextExchange.p2p,
        "how context-parallel ranks exchange keys and values: p2p, all_gather or a2a",
    )
    expert: int = setting(1, "expert-parallel size of the train ranks (MoE models)")
    expert_tensor: int | None = setting(
        None, "tensor-parallel size of the experts (MoE models); null: parallel.tensor"
    )
    overlap_grad_reduce: bool = setting(False, "reduce gradients while the backward pass goes on")
    overlap_param_gather: bool = setting(
        False, "gather updated weights while the next forward pass begins"
    )


@dataclass
class PrecisionConfig:
    train: Precision = setting(
        Precision.bf16, "float32, bf16 or fp8 (Transformer Engine on Hopper or newer)"
    )
    fp8_recipe: FP8Recipe = setting(
        FP8Recipe.delayed, "Transformer Engine recipe: delayed, tensorwise, blockwise or mxfp8"
    )
    fp8_format: FP8Format = setting(
        FP8Format.hybrid, "hybrid (E4M3 forward, E5M2 for gradients) or e4m3 (both)"
    )
    fp8_amax_history: int = setting(
        1024, "steps of which the delayed recipe keeps the largest values"
    )
    fp8_amax_algorithm: str = setting(
        "max", "the delayed recipe scales by the history's max or most_recent"
    )
    fp8_first_layers_bf16: int = setting(0, "first layers of the model that stay bf16")
    fp8_last_layers_bf16: int = setting(0, "last layers of the model that stay bf16")
    fp8_param_gather: bool = setting(
        False, "keep weights in FP8 and gather them so; the optimizer's stay float32"
    )
    rollout: str = setting("bfloat16", "dtype of the fleet: float32, bfloat16 or float16")


@dataclass
class RecomputeConfig:
    granularity: Recompute = setting(
        Recompute.none,
        "activations computed anew in the backward pass: none, selective (modules) or full",
    )
    modules: list[str] = setting(
        ["core_attn"],
        "modules of selective recomputation: core_attn, layernorm, mlp, moe_act, moe",
    )
    method: str = setting(
        "uniform", "full: uniform (every chunk of layers) or block (the first layers of a stage)"
    )
    layers: int = setting(
        1, "full: layers of a uniform chunk, or layers of a stage that recompute (block)"
    )


@dataclass
class DataConfig:
    train: str = setting("", "WebDataset shards of training tasks (glob or brace pattern)")
    heldout: dict[str, str] = setting({}, "name -> WebDataset shards of each held-out set")


@dataclass
class EnvironmentConfig:
    name: str = setting("search_qa", "environment of the tasks")
    max_turns: int = setting(6, "turns after which an episode without an answer fails")
    options: dict[str, Any] = setting(
        {}, "the environment's own options; see its file in megatron_trace/envs"
    )


@dataclass
class AllocationConfig:
    strategy: str = setting(
        "trace",
        "how the sampling budget is spent: a file of megatron_trace/allocation/strategies, or FILE.py",
    )
    unit: BudgetUnit = setting(
        BudgetUnit.rollouts,
        "what the budget counts: rollouts (a continuation is one) or sampled tokens",
    )
    budget: int = setting(256, "a step's sampling budget, in allocation.unit")
    expected_tokens: int = setting(
        256, "sampled tokens that a rollout is expected to take before any has ended (unit tokens)"
    )
    pool: int = setting(128, "candidate tasks a step, for strategies that choose among tasks")
    group: int = setting(
        8, "rollouts of a task, continuations included, for strategies that treat all alike"
    )
    bare_share: float | None = setting(
        None,
        "of the budget, the share for bare rollouts, the rest for continuations (strategies that branch); null: the "
        "strategy's own",
    )
    calibrate: bool = setting(
        True,
        "fit a temperature and a shift of the predictions to the last steps' outcomes, for the allocation",
    )
    prior_rollouts: float = setting(
        0.0,
        "outcomes that the mean success is worth against the predictions at the start (cold predictor)",
    )
    options: dict[str, Any] = setting(
        {},
        "strategy -> its own options (allocation.options.trace.floor=4); see its file, or docs/strategies.md",
    )


@dataclass
class RolloutConfig:
    workers: int = setting(1, "Ray actors with a vLLM engine each")
    tensor_parallel: int = setting(1, "tensor-parallel size of one engine")
    temperature: float = setting(1.0, "sampling temperature")
    max_turn_tokens: int = setting(512, "most sampled tokens of one turn")
    max_history_tokens: int = setting(8192, "most tokens of a whole rollout, prompt included")
    concurrency: int = setting(256, "live rollouts per engine")
    memory: float = setting(0.85, "share of the GPU's memory that an engine may use")
    cpu_cache_gib: int = setting(2, "key-value cache of an engine on the CPU, in GiB")
    block_size: int | None = setting(None, "tokens of a cache block; None lets vLLM choose")
    eager: bool = setting(False, "no graph capture in vLLM")
    weight_backend: WeightBackend = setting(
        WeightBackend.nccl, "ray: through the object store; nccl: GPU to GPU"
    )
    max_restarts: int = setting(3, "restarts of one worker before the run stops")
    ray_address: str | None = setting(None, "Ray cluster to join; None starts one on this machine")


@dataclass
class LearningConfig:
    learning_rate: float = setting(1e-6, "AdamW learning rate of the policy")
    predictor_learning_rate: float = setting(1e-4, "AdamW learning rate of the predictor head")
    predictor_hidden: int = setting(256, "width of the predictor's hidden layer")
    predictor_epochs: int = setting(
        16, "passes over a step's anchors in which the predictor learns"
    )
    predictor_batch: int = setting(64, "anchors of one update of the predictor, at most")
    predictor_average: float = setting(
        0.7,
        "share of its weights that the predictor keeps at a step, the rest is newly learned; 0: nothing",
    )
    weight_decay: float = setting(0.0, "AdamW weight decay of the policy")
    warmup_steps: int = setting(
        0,
        "optimizer updates over which the learning rates rise linearly, from 1 / (warmup_steps + 1)",
    )
    learning_rate_decay: Decay = setting(
        Decay.constant, "how the learning rates fall after warm-up: constant, linear or cosine"
    )
    decay_steps: int | None = setting(
        None, "optimizer updates, after warm-up, over which they fall"
    )
    min_learning_rate_factor: float = setting(
        0.0, "share of the learning rates at which the decay ends"
    )
    gradient_clip: float = setting(1.0, "largest gradient norm; larger ones are scaled down to it")
    advantage: str | None = setting(
        None,
        "advantage estimator: a file of megatron_trace/learning/advantages; null: that of the strategy's paper",
    )
    advantage_std: bool = setting(
        True, "divide advantages by the standard deviation of the rewards that they compare"
    )
    backup: Backup = setting(
        Backup.leaf_weighted,
        "success rate of a turn: of all leaves below it, or without those whose choice saw an outcome (unbiased)",
    )
    gigpo_weight: float = setting(
        1.0, "weight of the step-level advantage beside the episode's (gigpo)"
    )
    gigpo_discount: float = setting(
        0.95, "discount a turn of the return that steps compare (gigpo)"
    )
    filter_groups: bool = setting(
        False,
        "trees without a success and a failure teach only the predictor, and count in no mean",
    )
    overlong_buffer: int = setting(
        0,
        "tokens before rollout.max_history_tokens in which a rollout's length lowers its reward; 0: never",
    )
    overlong_penalty: float = setting(1.0, "by how much the longest rollout's reward is lowered")
    ratio: Ratio = setting(
        Ratio.token,
        "ratio of current to old policy: of each token, or the geometric mean of its turn (AT2PO) or sequence (GSPO)",
    )
    clip_low: float = setting(0.2, "the ratio is clipped below 1 - clip_low")
    clip_high: float = setting(0.28, "the ratio is clipped above 1 + clip_high")
    dual_clip: float | None = setting(
        None,
        "at negative advantages the ratio counts up to this at most (above 1); null: without bound",
    )
    sequence_mask: float | None = setting(
        None,
        "negative advantages of a rollout whose mean log(old/current) exceeds this, in nats, are left out; null: none",
    )
    importance: Importance = setting(
        Importance.truncate,
        "trainer/sampler importance weights: none, truncate (at the cap) or mask (0 outside floor and cap)",
    )
    importance_cap: float = setting(2.0, "largest importance weight")
    importance_floor: float = setting(0.0, "smallest importance weight (mask)")
    aggregation: Aggregation = setting(
        Aggregation.token,
        "mean over tokens, over sequences of their means, or over sequences of sums / dr_grpo_tokens (dr_grpo)",
    )
    dr_grpo_tokens: int | None = setting(
        None, "tokens by which a sequence's sum is divided (dr_grpo)"
    )
    reference_kl: float = setting(
        0.0, "weight of the KL to the reference policy, which is the start policy; 0: no reference"
    )
    entropy_bonus: float = setting(
        0.0,
        "weight of the policy's entropy, which it adds to the objective; negative sharpens the policy",
    )
    updates_per_step: int = setting(
        1, "mini-batches into which a step's rollouts are dealt, with an optimizer update on each"
    )
    epochs: int = setting(1, "times that a step's rollouts are learned from")
    micro_batch_tokens: int = setting(8192, "tokens of a packed micro-batch, padding included")


@dataclass
class StopConfig:
    logprob_gap: float | None = setting(
        None, "stop when mean |Δ log-probability| sampler/trainer exceeds this"
    )
    kl: float | None = setting(
        None,
        "stop when the KL of the updates on one step exceeds this; it is 0 with updates_per_step = 1 and epochs = 1",
    )
    gradient_norm: float | None = setting(None, "stop when the gradient norm exceeds this")
    malformed: float | None = setting(None, "stop when the share of malformed turns exceeds this")
    entropy_below: float | None = setting(
        None, "stop when the token entropy falls below this, in nats"
    )
    time_limit_min: float | None = setting(
        None, "minutes after which the run has ended: it saves a checkpoint stop.grace_s before"
    )
    hang_s: float | None = setting(
        1800.0,
        "seconds without progress of a phase after which all stacks are printed and the run ends",
    )
    grace_s: float = setting(
        25.0,
        "seconds to save and end after Ctrl-C, SIGTERM or a hang, then the run is killed; torchrun itself kills it "
        "after 30 (--shutdown-timeout)",
    )


@dataclass
class EvaluationConfig:
    every: int = setting(
        10, "steps between evaluations; the first and last policy are always evaluated; 0: never"
    )
    tasks: int = setting(128, "tasks taken of each held-out set, one rollout each")


@dataclass
class CheckpointConfig:
    every: int = setting(
        10, "steps between checkpoints; the last step is always saved; 0: none at all"
    )
    keep_last: int = setting(2, "newest checkpoints that are kept")
    keep_every: int = setting(0, "also keep the checkpoint of every so many steps; 0: of none")
    export_hf_every: int = setting(
        0, "steps between exports of the policy as HF folder; 0: only at the end"
    )
    resume: bool = setting(
        True, "go on with an unfinished run of this name; false moves it aside and starts anew"
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
