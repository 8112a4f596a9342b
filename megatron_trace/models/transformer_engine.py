"""Whether NVIDIA's Transformer Engine is there."""

import importlib.util


def has_transformer_engine() -> bool:
    """Whether Transformer Engine is installed."""
    return importlib.util.find_spec("transformer_engine") is not None
