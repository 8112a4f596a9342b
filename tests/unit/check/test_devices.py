"""What a machine does not have is refused in words; nothing is asked of it that is not needed."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron_trace.check.devices import check_devices
from megatron_trace.config import FP8Recipe, Precision, Recompute, SettingError, WeightBackend
from megatron_trace.models import transformer_engine
from tests.unit.check.models import settings

FP8 = {"precision__train": Precision.fp8}
HOPPER, BLACKWELL, CONSUMER = (9, 0), (10, 0), (12, 0)


def machine(
    monkeypatch: pytest.MonkeyPatch,
    capability: tuple[int, int] | None,
    cuda: str = "13.0",
    engine: bool = True,
) -> None:
    """A machine with such a GPU, or none."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(transformer_engine, "is_installed", lambda: engine)
    monkeypatch.setattr(transformer_engine, "import_problem", lambda: "")


@pytest.mark.parametrize(
    ("capability", "recipe"),
    [
        (HOPPER, FP8Recipe.delayed),
        (HOPPER, FP8Recipe.tensorwise),
        (HOPPER, FP8Recipe.blockwise),
        (BLACKWELL, FP8Recipe.mxfp8),
        (CONSUMER, FP8Recipe.tensorwise),
    ],
)
def test_each_recipe_runs_where_transformer_engine_has_it(
    capability: tuple[int, int], recipe: FP8Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, capability)
    check_devices(settings(**FP8, precision__fp8_recipe=recipe))


@pytest.mark.parametrize(
    ("capability", "cuda", "engine", "changed", "message"),
    [
        (
            None,
            "13.0",
            True,
            FP8,
            r"precision.train = 'fp8': needs a Hopper or newer GPU with CUDA",
        ),
        (
            (8, 9),
            "13.0",
            True,
            FP8,
            r"precision.train = 'fp8': needs a Hopper or newer GPU, not a GPU",
        ),
        (
            HOPPER,
            "13.0",
            False,
            FP8,
            r"precision.train = 'fp8': needs Transformer Engine: install it",
        ),
        (
            HOPPER,
            "13.0",
            True,
            {**FP8, "precision__fp8_recipe": FP8Recipe.mxfp8},
            r"'mxfp8': needs a Blackwell",
        ),
        (
            CONSUMER,
            "13.0",
            True,
            {**FP8, "precision__fp8_recipe": FP8Recipe.mxfp8},
            r"'mxfp8': needs a Blackwell",
        ),
        (
            HOPPER,
            "12.8",
            True,
            {**FP8, "precision__fp8_recipe": FP8Recipe.blockwise},
            r"CUDA 12.9 or newer, not 12.8",
        ),
        (
            None,
            "",
            True,
            {"rollout__weight_backend": WeightBackend.nccl},
            r"weight_backend = 'nccl': needs CUDA",
        ),
        (
            None,
            "",
            True,
            {"recompute__granularity": Recompute.selective, "recompute__modules": ["moe_act"]},
            r"recompute.modules = 'moe_act': needs Transformer Engine's grouped experts; use moe",
        ),
    ],
)
def test_what_is_missing_is_said(
    capability: tuple[int, int] | None,
    cuda: str,
    engine: bool,
    changed: dict[str, Any],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine(monkeypatch, capability, cuda, engine)
    with pytest.raises(SettingError, match=message):
        check_devices(settings(**changed))


def broken_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Transformer Engine whose PyTorch part was built against another PyTorch."""
    package = folder / "transformer_engine"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "pytorch.py").write_text("raise ImportError('undefined symbol: _ZN3c10')")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "transformer_engine", raising=False)


@pytest.mark.parametrize("train", [Precision.bf16, Precision.fp8])
def test_a_transformer_engine_that_cannot_be_imported_is_refused_with_its_error(
    train: Precision, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as real:
        broken_package(tmp_path, real)
        transformer_engine.import_problem.cache_clear()
        problem = transformer_engine.import_problem()
        transformer_engine.import_problem.cache_clear()
    # Megatron would import what is left of it.
    for name in [name for name in sys.modules if name.split(".")[0] == "transformer_engine"]:
        del sys.modules[name]
    machine(monkeypatch, HOPPER)
    monkeypatch.setattr(transformer_engine, "import_problem", lambda: problem)
    message = rf"train = '{train.value}': .* cannot be imported \(ImportError: undefined symbol"
    with pytest.raises(SettingError, match=message):
        check_devices(settings(precision__train=train))
    check_devices(settings(precision__train=Precision.float32))


@pytest.mark.parametrize("capability", [HOPPER, None])
def test_half_a_transformer_engine_is_refused_where_megatron_could_not_be_imported(
    capability: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, capability)
    problem = "FileNotFoundError: Could not find shared object file"
    monkeypatch.setattr(transformer_engine, "import_problem", lambda: problem)
    with pytest.raises(SettingError, match=r"cannot be imported \(FileNotFoundError: Could not"):
        check_devices(settings(precision__train=Precision.float32))


def test_without_a_gpu_nothing_is_lost_by_a_transformer_engine_that_megatron_does_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine(monkeypatch, None)
    monkeypatch.setattr(transformer_engine, "import_problem", lambda: "ImportError: libcuda.so.1")
    check_devices(settings(precision__train=Precision.bf16))


@pytest.mark.parametrize(
    ("path", "cc", "message"),
    [
        ("", None, r"CC = '': no C compiler is found, which Triton needs; install gcc"),
        (None, "icc", r"CC = 'icc': no C compiler is found"),
    ],
)
def test_a_gpu_without_a_c_compiler_is_refused(
    path: str | None, cc: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, HOPPER)
    monkeypatch.delenv("CC", raising=False)
    if path is not None:
        monkeypatch.setenv("PATH", path)
    if cc is not None:
        monkeypatch.setenv("CC", cc)
    nccl = settings(rollout__weight_backend=WeightBackend.nccl)
    with pytest.raises(SettingError, match=message):
        check_devices(nccl)
    monkeypatch.setenv("CC", sys.executable)  # any program will do
    check_devices(nccl)


def test_torch_is_not_imported_where_no_gpu_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it would raise
    check_devices(settings())
