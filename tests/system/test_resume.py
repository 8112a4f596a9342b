"""A run that was killed goes on as if nothing had happened."""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from megatron_trace.files.atomic import leftovers, partial_path
from megatron_trace.report.metrics_file import read_metrics
from megatron_trace.tree import load_trees
from tests.system.program import ROOT, finish, launch
from tests.system.random_kills import run_with_trees

LEARNED = (
    "policy_loss",
    "predictor_loss",
    "prediction",
    "gradient_norm",
    "kl_sampler",
    "success_rate",
)


def kill_when(
    run_dir: Path, moment: Callable[[Path], bool], *arguments: str, ranks: int = 1
) -> None:
    """Start a run and `kill -9` its rank 0 at `moment`."""
    process = launch(run_dir, *arguments, ranks=ranks)
    try:
        while not moment(run_dir):
            assert process.poll() is None, process.communicate()[0][-4000:]
            time.sleep(0.0005)
        rank0 = subprocess.run(
            ["pgrep", "-P", str(process.pid)], capture_output=True, text=True
        ).stdout.split()[0]
        os.kill(int(rank0), signal.SIGKILL)
        output, _ = process.communicate(timeout=60)
        assert process.returncode != 0, output
    finally:
        process.kill()


def steps(run_dir: Path) -> list[dict]:
    return [row for row in read_metrics(run_dir) if "evaluation" not in row]


def learned(run_dir: Path) -> list[dict[str, float]]:
    return [{name: row[name] for name in LEARNED} for row in steps(run_dir)]


def check_same_run(run_dir: Path, reference: Path) -> None:
    """Losses, trees and weights to the last bit."""
    assert learned(run_dir) == learned(reference)
    scores = [
        [row["evaluation"] for row in read_metrics(run) if "evaluation" in row]
        for run in (run_dir, reference)
    ]
    assert scores[0] == scores[1]
    for file in sorted((reference / "trees").glob("*")):
        assert load_trees(run_dir / "trees" / file.name) == load_trees(file)
    for name in ("model.safetensors", "predictor.safetensors"):
        ours, theirs = load_file(run_dir / "policy" / name), load_file(reference / "policy" / name)
        assert ours.keys() == theirs.keys()
        assert all(ours[key].equal(theirs[key]) for key in theirs)


@pytest.fixture(scope="module")
def killed(trained: Path, replayed: Path) -> Path:
    """A run as `replayed`, killed while the checkpoint of the third step was being written."""
    run_dir = replayed.with_name("killed")
    kill_when(
        run_dir, lambda run: (partial(run, 3) / "__0_0.distcp").exists(), "--replay", str(trained)
    )
    return run_dir


def partial(run_dir: Path, step: int) -> Path:
    return partial_path(run_dir / "checkpoints" / f"step_{step:05d}")


def copy(run_dir: Path, name: str) -> Path:
    return Path(shutil.copytree(run_dir, run_dir.with_name(name)))


@pytest.mark.slow
def test_killed_while_sampling_it_takes_the_same_steps_again(trained: Path, replayed: Path) -> None:
    run_dir = replayed.with_name("sampling")
    # The checkpoint of step 1 is published while step 2 samples.
    kill_when(run_dir, lambda run: (run / "checkpoints" / "step_00001").exists(), ranks=2)
    assert "continued from" in finish(run_dir, ranks=2)
    check_same_run(run_dir, trained)
    assert any("continued from" in event for row in steps(run_dir) for event in row["events"])


def test_killed_in_the_middle_of_a_save_it_goes_on_from_the_one_before(
    killed: Path, trained: Path, replayed: Path
) -> None:
    run_dir = copy(killed, "middle")
    assert f"continued from {run_dir}/checkpoints/step_00002" in finish(
        run_dir, "--replay", str(trained)
    )
    check_same_run(run_dir, replayed)
    assert not leftovers(run_dir / "checkpoints")


MOMENTS: dict[str, Callable[[Path], bool]] = {
    "before the first checkpoint": lambda run: (run / "config.yaml").exists(),
    "as a save begins": lambda run: partial(run, 2).exists(),
    "as the manifest is written": lambda run: (partial(run, 2) / "manifest.json").exists(),
    "as a checkpoint appears": lambda run: (run / "checkpoints" / "step_00002").exists(),
    "after the last step": lambda run: (run / "checkpoints" / "step_00003").exists(),
}


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_any_moment_it_goes_on_as_if_nothing_had_happened(
    moment: str, trained: Path, replayed: Path
) -> None:
    run_dir = replayed.with_name(moment.replace(" ", "_"))
    kill_when(run_dir, MOMENTS[moment], "--replay", str(trained))
    finish(run_dir, "--replay", str(trained))
    check_same_run(run_dir, replayed)


@pytest.mark.slow
def test_killed_twenty_times_at_random_moments_nothing_is_lost(
    trained: Path, tmp_path: Path
) -> None:
    program = [sys.executable, "-m", "tests.system.random_kills", "--kills", "20"]
    folders = ["--trees", str(trained), "--folder", str(tmp_path)]
    result = subprocess.run([*program, *folders], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "20 kills" in result.stdout and "none lost" in result.stdout


def test_the_killer_says_which_folder_it_wants(trained: Path) -> None:
    assert run_with_trees(str(trained)) == trained
    missing = re.escape(str(trained / "trees" / "trees" / "step_00001.jsonl.gz"))
    with pytest.raises(argparse.ArgumentTypeError, match=f"no {missing}; name the folder of a run"):
        run_with_trees(str(trained / "trees"))


LAYOUTS = {
    "tensor": ("parallel.tensor=2", 2),
    "pipeline": ("parallel.pipeline=2", 2),
    "rows": ("learning.batching.pack=rows", 1),
}
"""What may change when a run is continued: a setting, and the number of train ranks."""


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYOUTS)
def test_it_goes_on_in_another_layout_with_the_same_losses(
    name: str, killed: Path, trained: Path, replayed: Path
) -> None:
    run_dir = copy(killed, name)
    setting, ranks = LAYOUTS[name]
    finish(run_dir, setting, "--replay", str(trained), ranks=ranks)
    for ours, theirs in zip(learned(run_dir), learned(replayed), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6)


def test_a_damaged_checkpoint_is_not_used_and_the_run_says_so(
    killed: Path, trained: Path, replayed: Path
) -> None:
    run_dir = copy(killed, "damaged")
    file = next((run_dir / "checkpoints" / "step_00002").glob("*.distcp"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    output = finish(run_dir, "--replay", str(trained))
    assert "the checkpoint of step 2 is damaged and is not used" in output
    assert f"continued from {run_dir}/checkpoints/step_00001" in output
    check_same_run(run_dir, replayed)


@pytest.mark.slow
def test_a_run_whose_checkpoints_are_all_damaged_does_not_start_anew_unasked(
    killed: Path, trained: Path
) -> None:
    run_dir = copy(killed, "all-damaged")
    for metadata in (run_dir / "checkpoints").glob("step_*/.metadata"):
        metadata.write_bytes(b"")
    for _ in range(2):
        process = launch(run_dir, "--replay", str(trained))
        output, _ = process.communicate(timeout=100)
        assert process.returncode != 0
        assert "holds no checkpoint that is whole" in output


@pytest.mark.slow
def test_a_full_disk_costs_the_last_checkpoint_until_there_is_space(
    trained: Path, tmp_path: Path
) -> None:
    small = ["mount", "-t", "tmpfs", "-o", "size=150m", "tmpfs", str(tmp_path)]
    if subprocess.run(small, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        run_dir, replay = tmp_path / "run", ["--replay", str(trained)]
        process = launch(run_dir, *replay)
        output, _ = process.communicate(timeout=400)
        assert process.returncode == 1 and "step 3/3" in output
        assert "the checkpoint of step 3 could not be saved (the newest is that of step 2" in output
        assert "free space there, then give the same command again" in output
        assert (run_dir / "policy" / "model.safetensors").exists()
        assert not leftovers(run_dir / "checkpoints")
        subprocess.run(["mount", "-o", "remount,size=500m", str(tmp_path)], check=True)
        assert f"continued from {run_dir}/checkpoints/step_00002" in finish(run_dir, *replay)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.slow
def test_a_directory_that_cannot_be_written_is_refused_before_anything_starts(
    tmp_path: Path,
) -> None:
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(tmp_path)], capture_output=True
    ).returncode:
        pytest.skip("needs the right to mount a read-only file system")
    try:
        output, _ = launch(tmp_path / "run").communicate(timeout=100)
        assert "run.directory = " in output
        assert "Read-only file system" in output
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_another_setting_is_refused_by_its_name(killed: Path, trained: Path) -> None:
    process = launch(killed, "learning.optimizer.learning_rate=2e-4", "--replay", str(trained))
    output, _ = process.communicate(timeout=100)
    assert process.returncode != 0
    assert "learning.optimizer.learning_rate: 0.0001 in the checkpoint, 0.0002 now" in output


def test_a_finished_run_is_left_alone(trained: Path, replayed: Path) -> None:
    before = read_metrics(replayed)
    assert "is finished: it has all 3 steps" in finish(replayed, "--replay", str(trained))
    assert read_metrics(replayed) == before
