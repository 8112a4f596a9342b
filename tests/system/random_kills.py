"""Kills a run at random moments, many times, and continues it each time; nothing may be lost.

    PYTHONPATH=. python -m tests.system.random_kills --trees runs/a --folder /tmp/kills --kills 100

It replays the saved trees of the run `--trees`, of at least three steps: the whole program with its
train step, checkpoints, exports and guard, but without Ray and vLLM. The results are compared with
those of an undisturbed replay. Every start is a fork of this process, which has imported
everything, so a kill costs little.
"""

import argparse
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

from megatron_trace.supervise.guard import leave_group

# As in pretrain_trace.py: the writers of checkpoints spawn processes that import this file.
if __name__ == "__mp_main__":
    leave_group()

from megatron_trace.check.command import parse_command
from megatron_trace.training.checkpoint_folders import complete
from megatron_trace.training.guarded_run import run_guarded
from megatron_trace.training.run_folder import trees_file
from tests.system.program import ROOT, SMALL, STEPS

VICTIMS = ("rank 0", "rank 0 and its children", "one child")
"""Who is killed. A child is one of the processes that write a checkpoint, or their queue."""


def start(run_dir: Path, trees: Path) -> int:
    """Start the replay in a fork; returns its process id."""
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    log = os.open(run_dir.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    place = [f"run.directory={run_dir.parent}", f"run.name={run_dir.name}"]
    file = ["--config", "configs/geo_hop_cpu.yaml"]
    code = 1
    try:
        code = run_guarded(parse_command([*file, *SMALL, *place, "--replay", str(trees)]))
    finally:
        sys.stdout.flush()
        os._exit(code)


def children(pid: int) -> list[int]:
    """The process's children and theirs, without the guard, which runs in a separate session."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == pid and int(entry.parent.name) != pid:
            found.append(int(entry.parent.name))
    return found


def kill(pid: int, victim: str, rng: random.Random) -> None:
    """Kill -9 the victim, if it is still there."""
    below = children(pid)
    numbers = [pid]
    if victim == "rank 0 and its children":
        numbers = [pid, *below]
    if victim == "one child":
        numbers = [rng.choice(below)] if below else [pid]
    for number in numbers:
        try:
            os.kill(number, signal.SIGKILL)
        except ProcessLookupError:
            continue


def ended(pid: int, within_s: float) -> int | None:
    """The exit code of a start that ends in time, negative after a signal; None while it runs."""
    end = time.monotonic() + within_s
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            return None
        time.sleep(0.005)


def check_kept(run_dir: Path, before: int) -> int:
    """The newest complete checkpoint, which must not be older than `before`; none is damaged."""
    folder = run_dir / "checkpoints"
    newest = max(complete(folder), default=0)
    assert newest >= before, f"{run_dir}: step {before} was complete, now {newest} is the newest"
    assert not list(folder.glob("*.damaged*")), f"{run_dir}: a checkpoint was set aside"
    return newest


def run_with_trees(text: str) -> Path:
    """The folder of a run that a replay of `program.SMALL` can take its trees from.

    Raises:
        ArgumentTypeError: the trees of a step are missing.
    """
    for step in range(1, STEPS + 1):
        file = trees_file(Path(text), step)
        if not file.exists():
            wanted = f"name the folder of a run with saved trees of at least {STEPS} steps"
            raise argparse.ArgumentTypeError(f"there is no {file}; {wanted}")
    return Path(text)


def add_options(parser: argparse.ArgumentParser, *, kills: int) -> None:
    """The options of a program that kills; `kills` is the default."""
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=kills)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit-s", type=float, default=1e9, help="begin no kill after this time")


def main() -> None:
    """Parse the command line, kill, compare."""
    # Imported before any fork; the second is what the program itself imports late.
    import torch

    import megatron_trace.policy.checkpoint
    import megatron_trace.training.run  # noqa: F401
    from tests.system.test_resume import check_same_run

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trees", type=run_with_trees, required=True)
    add_options(parser, kills=100)
    args = parser.parse_args()
    os.chdir(ROOT)
    # The comparison of a run would start OpenMP's threads, for which every later fork would wait for
    # ever.
    torch.set_num_threads(1)
    args.folder.mkdir(parents=True, exist_ok=True)
    rng, began, kills, number = random.Random(args.seed), time.monotonic(), Counter[str](), 0
    reference = args.folder / "reference"
    assert ended(start(reference, args.trees), 600.0) == 0, reference.with_suffix(".log")
    length = time.monotonic() - began
    while sum(kills.values()) < args.kills and time.monotonic() - began < args.limit_s:
        run_dir, kept, code = args.folder / f"run{number}", 0, None
        number += 1
        while code != 0:
            started = time.monotonic()
            pid = start(run_dir, args.trees)
            killing = sum(kills.values()) < args.kills and time.monotonic() - began < args.limit_s
            code = ended(pid, rng.uniform(0, length) if killing else 600.0)
            # The first start was slow, and a kill after the end is none.
            length = min(length, time.monotonic() - started) if code == 0 else length
            if code is None:
                victim = rng.choice(VICTIMS)
                kill(pid, victim, rng)
                kills[victim] += 1
                # A run may survive the death of a child.
                code = ended(pid, 600.0)
            kept = check_kept(run_dir, kept)
        check_same_run(run_dir, reference)
        print(f"{run_dir.name}: whole; {dict(kills)}", flush=True)
    print(f"{sum(kills.values())} kills, {number} runs: none lost")


if __name__ == "__main__":
    main()
