"""Layouts that Megatron-Core or Transformer Engine refuse, or that our weight map cannot cut up.

Pure arithmetic on settings and config.json, so that a search over thousands of layouts can ask.
docs/parallelism.md has the table.
"""

import math
from typing import Any

from megatron_trace.config import (
    Config,
    ParallelConfig,
    SettingError,
    check_bounds,
)
from megatron_trace.models.architecture import (
    VOCABULARY_MULTIPLE,
    key_value_heads,
    number_of_experts,
)
from megatron_trace.models.layout import padding


def check_parallel(config: Config, hf: dict[str, Any], world_size: int) -> None:
    """Refuse a layout of `world_size` train ranks that cannot train the model.

    `hf` is the model's config.json.

    Raises:
        SettingError: at the first setting that cannot work.
    """
    # The checks below divide by these sizes, so a size of 0 has to be refused before them.
    check_bounds(config.parallel, "parallel.")
    _check_overlap(config.parallel)
    _check_tensor(config, hf)
    _check_pipeline(config.parallel, hf)
    _check_experts(config.parallel, hf)
    _check_world(config.parallel, world_size)
    check_micro_batch(config)


def divides(name: str, size: int, divided: dict[str, int]) -> None:
    """Refuse `size` of setting `name` where it does not divide one of the model's numbers."""
    for key, value in divided.items():
        if value % size:
            raise SettingError(name, size, f"must divide the model's {key} ({value})")


def _check_overlap(parallel: ParallelConfig) -> None:
    if parallel.sequence and parallel.tensor == 1:
        remedy = (
            "splits the sequence among tensor-parallel ranks: needs parallel.tensor > 1, or null"
        )
        raise SettingError("parallel.sequence", True, remedy)
    if parallel.overlap_param_gather and not parallel.overlap_grad_reduce:
        raise SettingError(
            "parallel.overlap_param_gather", True, "needs parallel.overlap_grad_reduce=true"
        )


def _check_tensor(config: Config, hf: dict[str, Any]) -> None:
    tensor = config.parallel.tensor
    heads = {
        "num_attention_heads": hf["num_attention_heads"],
        "num_key_value_heads": key_value_heads(hf),
    }
    divides("parallel.tensor", tensor, heads | {"intermediate_size": hf["intermediate_size"]})
    divides("rollout.tensor_parallel", config.rollout.tensor_parallel, heads)
    if VOCABULARY_MULTIPLE % tensor:
        remedy = (
            f"must divide {VOCABULARY_MULTIPLE}, to a multiple of which the vocabulary is padded"
        )
        raise SettingError("parallel.tensor", tensor, remedy)


def _check_pipeline(parallel: ParallelConfig, hf: dict[str, Any]) -> None:
    layers, pipeline, interleave = hf["num_hidden_layers"], parallel.pipeline, parallel.interleave
    divides("parallel.pipeline", pipeline, {"num_hidden_layers": layers})
    if interleave > 1 and pipeline == 1:
        raise SettingError("parallel.interleave", interleave, "needs parallel.pipeline > 1")
    if layers % (pipeline * interleave):
        remedy = (
            f"must divide the {layers // pipeline} layers of each of parallel.pipeline "
            f"({pipeline}) stages"
        )
        raise SettingError("parallel.interleave", interleave, remedy)


def _check_experts(parallel: ParallelConfig, hf: dict[str, Any]) -> None:
    experts = number_of_experts(hf)
    if not experts:
        for name in ("expert", "expert_tensor"):
            if getattr(parallel, name) not in (1, None):
                remedy = "the model has no experts; use 1"
                raise SettingError(f"parallel.{name}", getattr(parallel, name), remedy)
        return
    if experts % parallel.expert:
        raise SettingError(
            "parallel.expert", parallel.expert, f"must divide the model's num_experts ({experts})"
        )
    width = {"moe_intermediate_size": hf["moe_intermediate_size"]}
    if parallel.expert_tensor is None:
        divides("parallel.tensor", parallel.tensor, width)
    else:
        divides("parallel.expert_tensor", parallel.expert_tensor, width)
    if parallel.tensor > 1 and parallel.sequence is False:
        remedy = (
            "a model with experts needs it where parallel.tensor > 1: the ranks would send "
            "the same tokens twice"
        )
        raise SettingError("parallel.sequence", False, remedy)


def _check_world(parallel: ParallelConfig, world_size: int) -> None:
    ranks = f"the {world_size} train ranks" if world_size > 1 else "the single train rank"
    expert_tensor = parallel.expert_tensor or parallel.tensor
    for sizes in (
        {"tensor": parallel.tensor, "context": parallel.context, "pipeline": parallel.pipeline},
        {"expert": parallel.expert, "expert_tensor": expert_tensor, "pipeline": parallel.pipeline},
    ):
        if world_size % math.prod(sizes.values()):
            product = " x ".join(f"parallel.{key} ({value})" for key, value in sizes.items())
            name, value = next((key, value) for key, value in sizes.items() if value > 1)
            raise SettingError(f"parallel.{name}", value, f"{product} must divide {ranks}")


def check_micro_batch(config: Config) -> None:
    """Refuse micro-batches that cannot hold the longest rollout, padding included.

    Raises:
        SettingError: they cannot.
    """
    total = padding(config)
    longest, tokens = config.rollout.max_history_tokens, config.learning.batching.micro_batch_tokens
    if tokens // total * total < longest:
        remedy = (
            f"must hold one rollout: at least {-(-longest // total) * total}, "
            "rollout.max_history_tokens"
        )
        padded = f" ({longest}) padded to a multiple of {total}" if total > 1 else f" ({longest})"
        raise SettingError("learning.batching.micro_batch_tokens", tokens, remedy + padded)
