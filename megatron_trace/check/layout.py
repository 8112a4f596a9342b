"""All checks of how a model is trained, apart from the machine: what a search over layouts asks."""

from typing import Any

from megatron_trace.check.parallel import check_parallel
from megatron_trace.check.precision import check_precision
from megatron_trace.check.recompute import check_recompute
from megatron_trace.config import Config


def check_layout(config: Config, hf: dict[str, Any], world_size: int) -> None:
    """Refuse settings with which `world_size` train ranks cannot train the model.

    `hf` is the model's config.json.

    Reads no file and imports no torch.

    Raises:
        SettingError: at the first setting that cannot work.
    """
    check_parallel(config, hf, world_size)
    check_precision(config, hf)
    check_recompute(config, hf)
