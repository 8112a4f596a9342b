"""The settings that are a choice among names."""

from enum import Enum


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
    """Which activations the backward pass recomputes."""

    none = "none"
    selective = "selective"
    full = "full"


class Pack(Enum):
    """What is laid into a micro-batch: trees, whose tokens are computed once each, or rows."""

    tree = "tree"
    rows = "rows"


class Thoughts(Enum):
    """What later prompts of a chat have of a turn's thought."""

    keep = "keep"
    strip = "strip"


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
