"""Whether a checkpoint fits on the disk of the run's folder."""

import math
from pathlib import Path
from typing import Any

from megatron_trace.check.model import read_model_config
from megatron_trace.config import Config, SettingError
from megatron_trace.files.space import lacking_room

OPTIMIZER_BYTES = 12
"""Bytes of a parameter's optimizer state in a checkpoint: weight and two moments, in float32."""


def check_space(config: Config) -> None:
    """Refuse a folder whose disk has no room for one checkpoint.

    The settings and the model have passed the other checks.

    Raises:
        SettingError: it has none.
    """
    if not config.checkpoint.every:
        return
    # It imports torch, which takes seconds: a typo should be reported before.
    from megatron_trace.policy.precision import parameter_dtype

    model = read_model_config(config.model.path)
    try:
        parameters = _parameters(model)
    except KeyError:
        # A size is missing, which is no matter of the disk.
        return
    needed = parameters * (parameter_dtype(config.precision).itemsize + OPTIMIZER_BYTES)
    if lack := lacking_room(Path(config.run.directory) / config.run.name, needed):
        remedy = f"{lack} for a checkpoint; free space, or choose another folder"
        raise SettingError("run.directory", config.run.directory, remedy)


def _parameters(model: dict[str, Any]) -> int:
    """Number of parameters of the model that config.json `model` describes, without a predictor."""
    from megatron_trace.models.weight_map import expand, family_of
    from megatron_trace.policy.convert.locations import hf_shape

    tied = bool(model.get("tie_word_embeddings", False))
    rows = expand(family_of(model["model_type"]), model, tied=tied)
    return sum(math.prod(hf_shape(name, model)) for row in rows for name in row.hf)
