"""How PyTorch's CUDA allocator is set: train ranks let its segments grow, engines do not."""

import os

SETTINGS = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
"""Environment variables that PyTorch reads when it is imported; the first one wins."""

EXPANDABLE = "expandable_segments:True"


def grow_segments() -> None:
    """For a train rank, before torch is imported. A setting of the user's wins.

    Its micro-batches have ever new lengths. Segments of fixed size are left with holes that no
    later tensor fits into.
    """
    if not any(name in os.environ for name in SETTINGS):
        os.environ["PYTORCH_CUDA_ALLOC_CONF"] = EXPANDABLE


def fix_segments() -> None:
    """Undo `grow_segments` in a process that has inherited it, for the processes that it starts.

    vLLM's all-reduce shares memory by CUDA IPC handles, which expandable segments do not have.
    """
    if os.environ.get("PYTORCH_CUDA_ALLOC_CONF") == EXPANDABLE:
        del os.environ["PYTORCH_CUDA_ALLOC_CONF"]
