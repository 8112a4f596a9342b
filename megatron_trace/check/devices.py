"""What only the machine that trains can say: its GPUs, CUDA, compiler and Transformer Engine."""

import os
import shutil
import sysconfig
from pathlib import Path

from megatron_trace.config import (
    Config,
    FP8Recipe,
    Precision,
    Recompute,
    SettingError,
    WeightBackend,
)
from megatron_trace.models import transformer_engine

HOPPER, BLACKWELL, CONSUMER_BLACKWELL = (9, 0), (10, 0), (12, 0)
"""Compute capabilities."""


def check_devices(config: Config) -> None:
    """Refuse what this machine does not have. Imports torch where something needs a GPU.

    Raises:
        SettingError: it is not there.
    """
    train = config.precision.train
    nccl = config.rollout.weight_backend is WeightBackend.nccl
    grouped = (
        config.recompute.granularity is Recompute.selective
        and "moe_act" in config.recompute.modules
    )
    engine = transformer_engine.is_installed()
    if not (train is Precision.fp8 or nccl or grouped or engine):
        return  # nothing here needs a GPU
    import torch  # takes seconds, so only where it is needed

    cuda = torch.cuda.is_available()
    if train is Precision.fp8:
        _check_fp8_gpu(config, cuda)
    if nccl and not cuda:
        remedy = "needs CUDA GPUs, and there are none; use ray"
        raise SettingError("rollout.weight_backend", config.rollout.weight_backend, remedy)
    if grouped and not (cuda and transformer_engine.is_installed()):
        remedy = "needs Transformer Engine's grouped experts; use moe"
        raise SettingError("recompute.modules", "moe_act", remedy)
    if cuda:
        _check_compiler()
    _check_transformer_engine(train, cuda)


def _check_transformer_engine(train: Precision, cuda: bool) -> None:
    """Refuse to train without it where it is there but broken, or where FP8 needs it."""
    if not transformer_engine.is_installed():
        if train is Precision.fp8:
            remedy = "needs Transformer Engine: install it as docs/gpu.md says, or use bf16"
            raise SettingError("precision.train", train, remedy)
        return
    problem = transformer_engine.import_problem()
    # Without it Megatron's own layers would train as well, but slowly, and nobody would know why.
    wanted = cuda and train is not Precision.float32
    # Megatron tries to import it whatever is trained. Only after an ImportError does it go without.
    ends_megatron = not problem.startswith(("ImportError", "ModuleNotFoundError"))
    if problem and (wanted or ends_megatron):
        remedy = (
            f"Transformer Engine is installed and cannot be imported ({problem}); "
            "install it as docs/gpu.md says"
        )
        raise SettingError("precision.train", train, remedy)


def _check_compiler() -> None:
    """Triton and torch.compile build C programs while the run starts.

    Its first error would come minutes later, from an engine or in the first step.
    """
    named = os.environ.get("CC")
    # Triton looks for these two names.
    candidates = [named] if named else ["gcc", "clang"]
    if not any(shutil.which(name) for name in candidates):
        remedy = "no C compiler is found, which Triton needs; install gcc, or name another in CC"
        raise SettingError("CC", named or "", remedy)
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.exists():
        remedy = "is missing, and Triton's C programs include it; install Python's headers"
        raise SettingError("Python.h", str(header), remedy)


def _check_fp8_gpu(config: Config, cuda: bool) -> None:
    import torch

    train, recipe = config.precision.train, config.precision.fp8_recipe
    if not cuda:
        remedy = "needs a Hopper or newer GPU with CUDA, and there is none; use bf16 or float32"
        raise SettingError("precision.train", train, remedy)
    capability, name = torch.cuda.get_device_capability(), torch.cuda.get_device_name()
    if capability < HOPPER:
        raise SettingError(
            "precision.train", train, f"needs a Hopper or newer GPU, not {name}; use bf16"
        )
    if recipe is FP8Recipe.mxfp8 and not BLACKWELL <= capability < CONSUMER_BLACKWELL:
        remedy = (
            f"needs a Blackwell data-centre GPU (compute capability 10), not {name}; use blockwise"
        )
        raise SettingError("precision.fp8_recipe", recipe, remedy)
    if recipe is FP8Recipe.blockwise and _cuda_version() < (12, 9):
        remedy = f"needs PyTorch for CUDA 12.9 or newer, not {torch.version.cuda}; use tensorwise"
        raise SettingError("precision.fp8_recipe", recipe, remedy)


def _cuda_version() -> tuple[int, ...]:
    import torch

    return tuple(int(part) for part in (torch.version.cuda or "0").split("."))
