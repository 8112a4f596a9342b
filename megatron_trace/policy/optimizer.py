"""Megatron's data-parallel wrapper and distributed optimizer, and how its versions differ."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.distributed import DistributedDataParallel, finalize_model_grads
from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer
from megatron.core.optimizer.optimizer_config import ParamKey, ParamPredicate
from torch import Tensor

from megatron_trace.config import Config, LearningConfig
from megatron_trace.learning.schedule import learning_rate_factor
from megatron_trace.policy.megatron_config import ddp_config
from megatron_trace.policy.model import PolicyModel
from megatron_trace.policy.predictor_learner import PredictorLearner


def wrap(chunks: Sequence[PolicyModel], config: Config) -> list[Any]:
    """This rank's parts of the model with gradients summed over data-parallel ranks in float32."""
    settings = ddp_config(config)
    wrapped = [
        DistributedDataParallel(config=chunk.config, ddp_config=settings, module=chunk)
        for chunk in chunks
    ]
    for chunk in chunks:
        chunk.config.finalize_model_grads_func = finalize_model_grads
        if settings.overlap_grad_reduce:
            # Gradients are reduced during the last micro-batch's backward pass. `no_sync` keeps the
            # earlier micro-batches from reducing sums that are not complete.
            waits = [part.no_sync for part in wrapped]
            chunk.config.no_sync_func = waits if len(waits) > 1 else waits[0]
    return wrapped


class Optimizer:
    """The policy's AdamW, its state sharded over data-parallel ranks.

    Attributes:
        updates: of the policy, so far.
        predictor: what teaches the predictor, on ranks of the last pipeline stage.
    """

    def __init__(self, chunks: Sequence[Any], learning: LearningConfig) -> None:
        """Over the parameters of the wrapped `chunks`.

        The weights must be loaded before: the float32 weights are copied from them here.
        """
        self._chunks = chunks
        self.learning = learning
        self.updates = 0
        self.megatron = get_megatron_optimizer(
            OptimizerConfig(
                optimizer="adam",
                lr=learning.optimizer.learning_rate,
                weight_decay=learning.optimizer.weight_decay,
                adam_beta1=0.9,
                adam_beta2=0.999,
                clip_grad=learning.optimizer.gradient_clip,
                bf16=chunks[0].config.bf16,
                params_dtype=chunks[0].config.params_dtype,
                use_distributed_optimizer=True,
                overlap_param_gather=chunks[0].ddp_config.overlap_param_gather,
            ),
            list(chunks),
            # Norms and biases are not decayed.
            config_overrides={
                ParamKey(predicate=ParamPredicate("vector", _is_vector)): {"wd_mult": 0.0},
            },
        )

        self._settings = [
            {name: value for name, value in group.items() if name not in ("params", "step")}
            for group in self.megatron.param_groups
        ]
        head = getattr(chunks[-1].module, "predictor", None)
        stage = parallel_state.get_tensor_and_data_parallel_group(with_context_parallel=True)
        self.predictor = (
            PredictorLearner(head, learning.predictor, stage) if head is not None else None
        )

    def sharded_state(
        self, model_state: Any, *, loading: bool, metadata: dict[str, Any]
    ) -> dict[str, Any]:
        """Where the moments and main parameters of this rank lie within a checkpoint.

        Args:
            model_state: the model's sharded state dict.
            loading: they are to be filled.
            metadata: for Megatron.
        """
        if loading:
            # torch's Adam has no state before its first step, and there would be nothing to load
            # into.
            for part in self._parts():
                if not part.optimizer.state:
                    part._init_optimizer_states_with_dummy_values()
        parts = [
            part.sharded_state_dict(model_state, is_loading=loading, metadata=metadata)[
                "param_state"
            ]
            for part in self._parts()
        ]
        return {
            "policy": parts,
            "predictor": self.predictor.sharded_state() if self.predictor else {},
        }

    def load(self, state: dict[str, Any], updates: int) -> None:
        """Take over a checkpoint of `updates` updates; the settings stay this run's."""
        for part, found in zip(self._parts(), state["policy"], strict=True):
            own = part.state_dict()
            for group in own["optimizer"]["param_groups"]:
                group["step"] = updates
            part._set_main_param_and_optimizer_states = partial(_fill, part)
            part.load_state_dict(
                own | {"param_state": found, "param_state_sharding_type": "fully_reshardable"}
            )
            for moments in part.optimizer.state.values():
                # Megatron lets all parameters share one counter, which each of them would then
                # advance.
                if "step" in moments:
                    moments["step"] = moments["step"].clone()
        # Megatron matches groups by their multipliers alone, and so has mixed up their max_lr.
        for group, settings in zip(self.megatron.param_groups, self._settings, strict=True):
            group.update(settings)
        if self.predictor:
            # Only the rank that teaches the predictor has a state for it.
            self.predictor.load(state.get("predictor", {}))
        self.updates = updates

    def _parts(self) -> list[Any]:
        """Megatron's optimizers of this rank: one, and one for experts spread over ranks."""
        # A pipeline stage without experts has an optimizer for them that holds nothing.
        return [
            part
            for part in self.megatron.chained_optimizers
            if not part.is_stub_optimizer and part.buffers
        ]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self.megatron.zero_grad()

    def step(self) -> float:
        """One update with the accumulated gradients. Returns the gradient norm before clipping.

        Raises:
            FloatingPointError: a gradient is not finite.
        """
        factor = learning_rate_factor(self.updates, self.learning.optimizer)
        for group in self.megatron.param_groups:
            group["lr"] = factor * group["max_lr"]
            group["weight_decay"] = self.learning.optimizer.weight_decay * group["wd_mult"]
        succeeded, norm, _ = self.megatron.step()
        norm = float(norm)
        if not succeeded or norm != norm or norm == float("inf"):
            raise FloatingPointError(f"the gradient norm of update {self.updates} is {norm}")
        self.updates += 1
        return norm

    def gather_weights(self) -> None:
        """Bring all updated weights to every rank now.

        With `overlap_param_gather` Megatron leaves that to the next forward pass. But between two
        steps the weights are read: for the samplers, exports and checkpoints.
        """
        for chunk in self._chunks:
            if chunk.ddp_config.overlap_param_gather:
                chunk.start_param_sync(force_sync=True)
        # The samplers' weights are read on other streams, which do not wait for this one.
        torch.cuda.current_stream().synchronize()


def _fill(part: Any, parameter: Tensor, tensors: dict[str, Tensor]) -> None:
    """As Megatron's method, but values that are not in the checkpoint stay.

    torch's Adam keeps its step beside the moments, and Megatron does not store it there.
    """
    own = part._get_main_param_and_optimizer_states(parameter)
    type(part)._set_main_param_and_optimizer_states(part, parameter, own | tensors)


def _is_vector(parameter: Tensor) -> bool:
    return parameter.dim() == 1
