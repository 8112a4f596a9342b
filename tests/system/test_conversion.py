"""Converted checkpoints are what Megatron-Core itself writes for the same model, and it loads them
in any layout.
"""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from megatron_trace.policy.convert.to_hf import to_hf
from megatron_trace.policy.convert.to_megatron import to_megatron
from megatron_trace.policy.convert.torch_dist_reader import TensorReader
from megatron_trace.policy.hf_writer import copy_hf_assets
from megatron_trace.policy.manifest import write_manifest
from tests.system.parity import assert_same_bits, save_model, settings
from tests.system.test_families import FAMILIES, FOUR, ROWS, TWO, cases

LAYOUTS: dict[str, list[str]] = {"one": [], **TWO, **FOUR}
ONE = [("one", family) for family in FAMILIES]
PAIRS = {
    "qwen3": "tensor2",
    "qwen2": "pipeline2",
    "llama": "tensor2",
    "moe": "expert2",
    "moe-mixed": "tensor2",
}
WIDER = [(layout, family) for layout, family in cases(TWO) if PAIRS[family] != layout]


def quietly(done: int, total: int) -> None:
    pass


def launch(folder: Path, ranks: int, wanted: list[tuple[str, str]]) -> None:
    """Have these layouts of these families checked; see conversion_ranks.py."""
    todo = [
        (
            [*settings(folder / family, *LAYOUTS[layout]), "precision.train=bf16"],
            folder / f"{family}-converted",
            folder / f"{family}-{layout}",
        )
        for layout, family in wanted
    ]
    job = folder / f"conversion{ranks}.pickle"
    job.write_bytes(pickle.dumps({"rows": ROWS, "cases": todo}))
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={ranks}",
    ]
    command = [*torchrun, str(Path(__file__).with_name("conversion_ranks.py")), str(job)]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-8000:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Per family its HF folder and the converted one; and that of a run on two ranks."""
    folder = tmp_path_factory.mktemp("conversion")
    torch.manual_seed(3)
    for family, config in FAMILIES.items():
        save_model(AutoModelForCausalLM.from_config(config()).bfloat16(), folder / family)
        to_megatron(folder / family, folder / f"{family}-converted", quietly)
    launch(folder, 2, [(layout, family) for family, layout in PAIRS.items()])
    return folder


@pytest.fixture(scope="module")
def wide(folder: Path) -> Path:
    launch(folder, 1, ONE)
    launch(folder, 2, WIDER)
    launch(folder, 4, cases(FOUR))
    return folder


@pytest.mark.parametrize(("family", "layout"), PAIRS.items())
def test_a_converted_checkpoint_holds_what_megatron_writes(
    folder: Path, layout: str, family: str
) -> None:
    ours, theirs = (
        TensorReader(folder / f"{family}-converted"),
        TensorReader(folder / f"{family}-{layout}"),
    )
    assert ours.names() == {key for key in theirs.names() if not key.startswith("optimizer.")}
    for key in ours.names():
        assert (ours.shape(key), ours.dtype(key)) == (theirs.shape(key), theirs.dtype(key)), key


def check_export(folder: Path, layout: str, family: str) -> None:
    checkpoint, out = folder / f"{family}-{layout}", folder / f"{family}-{layout}-out"
    (checkpoint / "hf").mkdir()
    copy_hf_assets(folder / family, checkpoint / "hf")
    write_manifest(checkpoint)
    to_hf(checkpoint, out, quietly)
    assert_same_bits(folder / f"{family}-{layout}-run", out)
    before = load_file(folder / family / "model.safetensors")
    changed = [
        name
        for name, tensor in load_file(out / "model.safetensors").items()
        if not tensor.equal(before[name])
    ]
    assert len(changed) > len(before) // 2


@pytest.mark.parametrize(("family", "layout"), PAIRS.items())
def test_a_runs_checkpoint_converts_to_what_the_run_exports(
    folder: Path, layout: str, family: str
) -> None:
    check_export(folder, layout, family)


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "family"), [*ONE, *WIDER, *cases(FOUR)])
def test_a_runs_checkpoint_converts_from_wider_layouts_too(
    wide: Path, layout: str, family: str
) -> None:
    check_export(wide, layout, family)
