"""Every setting, with its default and meaning. Imports without torch, Ray or vLLM."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Precision(Enum):
    """Arithmetic of the policy's training."""

    float32 = "float32"
    bf16 = "bf16"
    fp8 = "fp8"


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
    steps: int = setting(100, "optimizer steps to train")
    save_trees: bool = setting(True, "keep every step's trees, for reports and --replay")


@dataclass
class ModelConfig:
    path: str = setting("", "start policy: a HF folder (config, tokenizer, safetensors) or a checkpoint")


@dataclass
class ParallelConfig:
    tensor: int = setting(1, "tensor-parallel size of the train ranks")
    pipeline: int = setting(1, "pipeline-parallel size of the train ranks")
    expert: int = setting(1, "expert-parallel size of the train ranks (MoE models)")


@dataclass
class PrecisionConfig:
    train: Precision = setting(Precision.bf16, "float32, bf16 or fp8 (Transformer Engine on Hopper or newer)")
    fp8_recipe: str = setting("delayed", "Transformer Engine recipe: delayed, tensorwise, blockwise or mxfp8")
    rollout: str = setting("bfloat16", "dtype of the fleet: float32, bfloat16 or float16")


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
    strategy: str = setting("trace", "how the sampling budget is spent: trace or uniform")
    budget: int = setting(256, "rollouts a step, continuations included; spent exactly")
    bare_rollouts: int = setting(
        128, "of the budget, rollouts from roots in stage 1 (trace); the rest are continuations"
    )
    pool: int = setting(128, "candidate tasks a step among which stage 1 chooses (trace)")
    floor: int = setting(4, "fewest bare rollouts of a task that gets any (trace)")
    root_cap: int | None = setting(None, "most bare rollouts of one task (trace)")
    prefix_cap: int | None = setting(None, "most continuations of one prefix (trace)")
    group: int = setting(8, "rollouts of every task (uniform)")


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
    predictor_weight: float = setting(0.1, "weight of the predictor's loss")
    weight_decay: float = setting(0.0, "AdamW weight decay of the policy")
    warmup_steps: int = setting(0, "optimizer steps over which the learning rates rise from 0")
    gradient_clip: float = setting(1.0, "largest gradient norm; larger ones are scaled down to it")
    clip_low: float = setting(0.2, "the ratio is clipped below 1 - clip_low")
    clip_high: float = setting(0.28, "the ratio is clipped above 1 + clip_high")
    importance_cap: float = setting(2.0, "trainer/sampler importance weights are truncated here")
    updates_per_step: int = setting(1, "optimizer updates on one step's trees")
    micro_batch_tokens: int = setting(8192, "tokens of a micro-batch, padding included")


@dataclass
class StopConfig:
    logprob_gap: float | None = setting(
        None, "stop when mean |Δ log-probability| sampler/trainer exceeds this"
    )
    kl: float | None = setting(
        None, "stop when the KL of the updates on one step exceeds this; 0 with updates_per_step = 1"
    )
    gradient_norm: float | None = setting(None, "stop when the gradient norm exceeds this")
    malformed: float | None = setting(None, "stop when the share of malformed turns exceeds this")
    entropy_below: float | None = setting(None, "stop when the token entropy falls below this, in nats")
    time_limit_min: float | None = setting(
        None, "minutes after which the run has ended: it saves a checkpoint stop.grace_s before"
    )
    hang_s: float | None = setting(
        1800.0, "seconds without progress of a phase after which all stacks are printed and the run ends"
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
    every: int = setting(10, "steps between checkpoints; the last step is always saved; 0: none at all")
    keep_last: int = setting(2, "newest checkpoints that are kept")
    keep_every: int = setting(0, "also keep the checkpoint of every so many steps; 0: of none")
    export_hf_every: int = setting(0, "steps between exports of the policy as HF folder; 0: only at the end")
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
    data: DataConfig = field(default_factory=DataConfig)
    environment: EnvironmentConfig = field(default_factory=EnvironmentConfig)
    allocation: AllocationConfig = field(default_factory=AllocationConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    learning: LearningConfig = field(default_factory=LearningConfig)
    stop: StopConfig = field(default_factory=StopConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
