"""The folder of a run's results: who may use it, and what happens to what is in it."""

import os
import re
import time
from pathlib import Path

from filelock import lock_descriptor
from omegaconf import OmegaConf

from megatron_trace.config import Config
from megatron_trace.files.atomic import write_text
from megatron_trace.training.identity import OtherRun

TREES = re.compile(r"step_(\d+)\.jsonl\.gz")
"""Name of a step's trees."""

CLAIM_S = 20.0
"""How long a run waits for another of its name to end."""

POLL_S = 0.5


def run_folder(config: Config) -> Path:
    """Where the run's results go."""
    return Path(config.run.directory) / config.run.name


def trees_file(run_dir: Path, step: int) -> Path:
    """Where a step's trees are kept."""
    return run_dir / "trees" / f"step_{step:05d}.jsonl.gz"


def finished_file(run_dir: Path) -> Path:
    """Holds the number of the last step once all results of the run are there."""
    return run_dir / "finished"


def claim(run_dir: Path) -> None:
    """Lock the run's folder as long as this process lives.

    The processes of a run that was killed get `CLAIM_S` to end.

    Raises:
        OtherRun: another run of this name has not ended.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    # The lock is on the folder itself, so it leaves no file and moves with the folder. The
    # descriptor stays open on purpose. Forked children inherit it: a killed run holds its folder
    # until the last writer of its checkpoint ended. (filelock's FileLock would release the lock in
    # them.)
    descriptor = os.open(run_dir, os.O_RDONLY)
    end = time.monotonic() + CLAIM_S
    try:
        while not lock_descriptor(descriptor, blocking=False):
            if time.monotonic() > end:
                raise OtherRun(f"a run is going on in {run_dir}; choose another run.name")
            time.sleep(POLL_S)
    except OSError:
        # A file system without locks.
        return


def move_aside(run_dir: Path) -> None:
    """Rename an earlier run's folder to <name>.1, <name>.2, ..."""
    number = 1
    while (aside := run_dir.with_name(f"{run_dir.name}.{number}")).exists():
        number += 1
    run_dir.rename(aside)


def prepare_folder(config: Config, step: int) -> None:
    """Write the run's settings, and remove the trees of steps after `step`: they come again."""
    run_dir = run_folder(config)
    write_text(run_dir / "config.yaml", OmegaConf.to_yaml(OmegaConf.structured(config)))
    for file in (run_dir / "trees").glob("step_*"):
        match = TREES.fullmatch(file.name)
        if match and int(match[1]) > step:
            file.unlink()
