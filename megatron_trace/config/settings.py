"""All settings of a run, and those of the run itself. Imports neither torch, Ray nor vLLM."""

from dataclasses import dataclass, field

from megatron_trace.config.learning import LearningConfig
from megatron_trace.config.model import (
    ModelConfig,
    ParallelConfig,
    PrecisionConfig,
    RecomputeConfig,
)
from megatron_trace.config.sampling import (
    AllocationConfig,
    DataConfig,
    EnvironmentConfig,
    RolloutConfig,
)
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
