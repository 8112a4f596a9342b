"""The settings of learning, in sections: optimizer, loss, advantage, predictor, batching."""

from dataclasses import dataclass, field
from typing import Any

from megatron_trace.config.choices import Aggregation, Backup, Decay, Importance, Pack, Ratio
from megatron_trace.config.setting import setting


@dataclass
class OptimizerConfig:
    """AdamW over the policy's parameters, and the schedule of the learning rates."""

    learning_rate: float = setting(1e-6, "AdamW learning rate of the policy", above=0)
    weight_decay: float = setting(0.0, "AdamW weight decay of the policy", at_least=0)
    warmup_steps: int = setting(
        0,
        "optimizer updates over which the learning rates rise linearly, from 1 / (warmup_steps + "
        "1)",
        at_least=0,
    )
    decay: Decay = setting(
        Decay.constant, "how the learning rates fall after warm-up: constant, linear or cosine"
    )
    decay_steps: int | None = setting(
        None, "optimizer updates after warm-up in which the learning rates fall", at_least=1
    )
    min_learning_rate_factor: float = setting(
        0.0, "share of the learning rates at which the decay ends", at_least=0, at_most=1
    )
    gradient_clip: float = setting(
        1.0, "largest gradient norm; a larger gradient is scaled down to it", above=0
    )


@dataclass
class LossConfig:
    """The policy's loss: ratio, clipping, importance weights, mean, KL and entropy terms."""

    ratio: Ratio = setting(
        Ratio.token,
        "ratio of current to old policy: of each token, or the geometric mean over its turn "
        "(AT2PO) or "
        "sequence (GSPO)",
    )
    clip_low: float = setting(0.2, "the ratio is clipped below 1 - clip_low", above=0, below=1)
    clip_high: float = setting(0.28, "the ratio is clipped above 1 + clip_high", above=0)
    dual_clip: float | None = setting(
        None,
        "largest ratio that counts where the advantage is negative; null: no limit",
        above=1,
        reason="with a lower limit, tokens that have not changed would teach nothing",
    )
    sequence_mask: float | None = setting(
        None,
        "drop the negative-advantage tokens of a rollout whose mean log(old/current) exceeds "
        "this, in nats; "
        "null: keep all",
        at_least=0,
        reason="a lower limit would drop rollouts that have not drifted",
    )
    importance: Importance = setting(
        Importance.truncate,
        "trainer/sampler importance weights: none, truncate (at the cap) or mask (0 outside floor "
        "and cap)",
    )
    importance_cap: float = setting(2.0, "largest importance weight", above=0)
    importance_floor: float = setting(
        0.0, "smallest importance weight; a smaller one becomes 0 (mask)", at_least=0
    )
    aggregation: Aggregation = setting(
        Aggregation.token,
        "mean over tokens; mean over sequences of their token means (sequence); or mean over "
        "sequences of "
        "their token sums / dr_grpo_tokens (dr_grpo)",
    )
    dr_grpo_tokens: int | None = setting(
        None, "tokens by which a sequence's sum is divided (dr_grpo)", at_least=1
    )
    reference_kl: float = setting(
        0.0,
        "weight of the KL to the reference policy, which is the start policy; 0: no reference "
        "policy is kept",
        at_least=0,
        reason="a negative weight would drive the policy away from the reference without end",
    )
    entropy_bonus: float = setting(
        0.0,
        "weight of the policy's entropy in the objective; a negative weight lowers the entropy",
    )


@dataclass
class AdvantageConfig:
    """How much credit a sampled turn gets, and which trees and rewards it is computed from."""

    name: str | None = setting(
        None,
        "advantage estimator: a file of megatron_trace/learning/advantages, or FILE.py; null: the "
        "strategy's own",
    )
    options: dict[str, Any] = setting(
        {},
        "estimator -> options of that estimator (learning.advantage.options.gigpo.weight=0.5)",
    )
    std: bool = setting(
        True,
        "divide advantages by the standard deviation of the rewards that they compare (not those of "
        "belief, pcl and rloo)",
    )
    backup: Backup = setting(
        Backup.leaf_weighted,
        "success rate of a turn: over all leaves below the turn (leaf_weighted), or without the "
        "leaves whose "
        "outcome led to the choice of an anchor (unbiased)",
    )
    merge: bool = setting(
        False,
        "rollouts of a task with the same actions and observations so far share these turns: "
        "estimator and predictor see the outcomes of all of them",
    )
    filter_groups: bool = setting(
        False,
        "trees without both a success and a failure teach only the predictor and count in no mean",
    )
    overlong_buffer: int = setting(
        0,
        "tokens before rollout.max_history_tokens in which a longer rollout gets a lower reward; "
        "0: never",
        at_least=0,
    )
    overlong_penalty: float = setting(
        1.0, "how much the reward of the longest rollout is lowered", above=0
    )


@dataclass
class PredictorConfig:
    """How the predictor learns from a step's anchors."""

    forgetting: float = setting(
        0.05,
        "share of what the predictor knows that a step forgets, as the policy changes",
        at_least=0,
        below=1,
    )
    prior_std: float = setting(
        32.0,
        "standard deviation of the predictor's logits before it has learned: the smaller, the more "
        "its weights are pulled towards 0",
        above=0,
    )


@dataclass
class BatchingConfig:
    """How a step's rows are dealt into optimizer updates and micro-batches."""

    updates_per_step: int = setting(
        1,
        "mini-batches into which a step's trees are dealt; each makes one optimizer update",
        at_least=1,
    )
    epochs: int = setting(1, "passes over a step's rollouts", at_least=1)
    micro_batch_tokens: int = setting(
        8192, "tokens of a packed micro-batch, padding included", at_least=1
    )
    pack: Pack = setting(
        Pack.tree, "tree: every token of a tree is computed once; rows: each rollout by itself"
    )
    merge: bool = setting(
        True,
        "a tree's rollouts share all tokens with which they begin alike; false: only turns that "
        "they have in common",
    )


@dataclass
class LearningConfig:
    """Learning from a step's trees."""

    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    advantage: AdvantageConfig = field(default_factory=AdvantageConfig)
    predictor: PredictorConfig = field(default_factory=PredictorConfig)
    batching: BatchingConfig = field(default_factory=BatchingConfig)
