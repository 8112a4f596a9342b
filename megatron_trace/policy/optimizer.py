"""Megatron's data-parallel wrapper and distributed optimizer. What differs between Megatron versions is here."""

from typing import Any

from megatron.core.distributed import (
    DistributedDataParallel,
    DistributedDataParallelConfig,
    finalize_model_grads,
)
from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer
from megatron.core.optimizer.optimizer_config import ParamKey, ParamPredicate
from torch import Tensor

from megatron_trace.config import LearningConfig
from megatron_trace.policy.model import PolicyModel


def wrap(model: PolicyModel) -> Any:
    """The model with gradients summed over data-parallel ranks in float32."""
    settings = DistributedDataParallelConfig(grad_reduce_in_fp32=True, use_distributed_optimizer=True)
    model.config.finalize_model_grads_func = finalize_model_grads
    return DistributedDataParallel(config=model.config, ddp_config=settings, module=model)


class Optimizer:
    """AdamW, its state sharded over data-parallel ranks; the predictor has its own learning rate."""

    def __init__(self, model: Any, learning: LearningConfig) -> None:
        """Over the parameters of the wrapped `model` as they are now: load weights before."""
        self.learning = learning
        self.updates = 0
        self._optimizer = get_megatron_optimizer(
            OptimizerConfig(
                optimizer="adam",
                lr=learning.learning_rate,
                weight_decay=learning.weight_decay,
                adam_beta1=0.9,
                adam_beta2=0.999,
                clip_grad=learning.gradient_clip,
                bf16=model.config.bf16,
                params_dtype=model.config.params_dtype,
                use_distributed_optimizer=True,
            ),
            [model],
            config_overrides={
                ParamKey(name="*predictor.*"): {"max_lr": learning.predictor_learning_rate, "wd_mult": 0.0},
                ParamKey(predicate=ParamPredicate("vector", _is_vector)): {"wd_mult": 0.0},
            },
        )

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self._optimizer.zero_grad()

    def step(self) -> float:
        """One update with the gradients at hand. Returns the policy's gradient norm before clipping.

        Raises:
            FloatingPointError: a gradient is not finite.
        """
        warmth = min(1.0, (self.updates + 1) / (self.learning.warmup_steps + 1))
        for group in self._optimizer.param_groups:
            group["lr"] = warmth * group["max_lr"]
            group["weight_decay"] = self.learning.weight_decay * group["wd_mult"]
        succeeded, norm, _ = self._optimizer.step()
        norm = float(norm)
        if not succeeded or norm != norm or norm == float("inf"):
            raise FloatingPointError(f"the gradient norm of update {self.updates} is {norm}")
        self.updates += 1
        return norm


def _is_vector(parameter: Tensor) -> bool:
    return parameter.dim() == 1
