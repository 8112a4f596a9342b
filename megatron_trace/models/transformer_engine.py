"""Whether NVIDIA's Transformer Engine is there and can be used."""

import importlib
import importlib.util
from functools import cache


def is_installed() -> bool:
    """Whether a package of its name is there; it may still fail to load."""
    return importlib.util.find_spec("transformer_engine") is not None


@cache
def import_problem() -> str:
    """Why it cannot be imported; "" where it can. Takes seconds, and makes sense only with CUDA.

    The package of its name says little: its PyTorch part is built against one PyTorch and one CUDA,
    and does not load beside others.
    """
    try:
        importlib.import_module("transformer_engine.pytorch")
    # Missing libraries, symbols and versions all raise something else, and all mean the same.
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return ""
