"""Every setting with its default, meaning and bounds. Imports neither torch, Ray nor vLLM."""

from megatron_trace.config.choices import (
    Aggregation,
    Backup,
    BudgetUnit,
    Decay,
    FP8Format,
    FP8Recipe,
    Importance,
    Pack,
    Precision,
    Ratio,
    Recompute,
    Thoughts,
    WeightBackend,
)
from megatron_trace.config.error import SettingError
from megatron_trace.config.flatten import flatten
from megatron_trace.config.learning import (
    AdvantageConfig,
    BatchingConfig,
    LearningConfig,
    LossConfig,
    OptimizerConfig,
    PredictorConfig,
)
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
from megatron_trace.config.setting import all_settings, check_bounds, setting
from megatron_trace.config.settings import (
    CheckpointConfig,
    Config,
    EvaluationConfig,
    RunConfig,
    StopConfig,
)

__all__ = [
    "AdvantageConfig",
    "Aggregation",
    "AllocationConfig",
    "Backup",
    "BatchingConfig",
    "BudgetUnit",
    "CheckpointConfig",
    "Config",
    "DataConfig",
    "Decay",
    "EnvironmentConfig",
    "EvaluationConfig",
    "FP8Format",
    "FP8Recipe",
    "Importance",
    "LearningConfig",
    "LossConfig",
    "ModelConfig",
    "OptimizerConfig",
    "Pack",
    "ParallelConfig",
    "Precision",
    "PrecisionConfig",
    "PredictorConfig",
    "Ratio",
    "Recompute",
    "RecomputeConfig",
    "RolloutConfig",
    "RunConfig",
    "SettingError",
    "StopConfig",
    "Thoughts",
    "WeightBackend",
    "all_settings",
    "check_bounds",
    "flatten",
    "setting",
]
