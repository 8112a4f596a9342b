"""Kills the whole program at random moments, with Ray and vLLM, and continues it each time.

    PYTHONPATH=. python -m tests.system.whole_kills --folder /tmp/kills --kills 10

Every run takes the few steps of `program.SMALL` on one rank and one worker. No step that was
complete may be lost, and the run must end with the losses, trees, scores and weights of a run that
nobody disturbed. What has been done is kept in `--folder`: the same command with another `--seed`
makes further kills. (`random_kills.py` makes many more in the same time, without Ray and vLLM.)
"""

import argparse
import os
import random
import subprocess
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
from psutil import Process

from megatron_trace.supervise.leftovers import lives, tagged
from megatron_trace.supervise.stacks import TAG
from megatron_trace.training.checkpoint_folders import complete
from tests.system.program import ROOT, STEPS, launch
from tests.system.random_kills import add_options, check_kept

VICTIMS = {
    "rank 0": ("rank",),
    "rank 0 and its guard": ("rank", "guard"),
    "the worker": ("worker",),
    "the engine": ("engine",),
    "torchrun": ("torchrun",),
}
"""Who is killed."""

END_S = 30.0
"""Time in which the guard must have ended all processes of a run."""


def role(process: Process) -> str:
    """What a process of a run is; "" where nobody kills it apart from the others."""
    try:
        # Linux may say for a while that the command line is empty; it keeps 15 characters of a name.
        command = " ".join([process.name(), *process.cmdline()])
    except psutil.Error:
        return ""
    names = {"guard_process": "guard", "ray::Worker": "worker", "VLLM::EngineCor": "engine"}
    return next((one for text, one in names.items() if text in command), "")


def processes(torchrun: subprocess.Popen[str]) -> dict[str, list[Process]]:
    """The processes of a run by their roles; "all" has every one of them."""
    root = Process(torchrun.pid)
    ranks = [one for one in root.children() if "pretrain_trace.py" in " ".join(one.cmdline())]
    everyone = {*root.children(recursive=True), *tagged(tag_of(ranks))}
    found = {"torchrun": [root], "rank": ranks, "all": [root, *everyone]}
    for process in everyone:
        if name := role(process):
            found.setdefault(name, []).append(process)
    return found


def tag_of(ranks: list[Process]) -> str:
    """The tag that every process below a rank carries."""
    for rank in ranks:
        for child in rank.children():
            if tag := child.environ().get(TAG):
                return tag
    return "none yet"


def kill(torchrun: subprocess.Popen[str], victim: str) -> list[Process]:
    """Kill -9 the victim; returns all processes of the run, none if the run had ended by then."""
    while torchrun.poll() is None:
        # Processes may end while one looks at them.
        with suppress(psutil.Error):
            found = processes(torchrun)
            if all(found.get(name) for name in VICTIMS[victim]):
                for name in VICTIMS[victim]:
                    for process in found[name]:
                        process.kill()
                return found["all"]
        # Workers and engines come long after the start.
        time.sleep(0.2)
    return []


def finish(torchrun: subprocess.Popen[str], log: Path, everyone: list[Process]) -> int:
    """The exit code; what outlives the run without its guard is named and killed."""
    output, _ = torchrun.communicate(timeout=400)
    log.write_text(output)
    end = time.monotonic() + END_S
    while any(map(lives, everyone)) and time.monotonic() < end:
        time.sleep(0.2)
    for process in filter(lives, everyone):
        print(f"{log.stem}: still there, so killed: {process}", flush=True)
        process.kill()
    return torchrun.returncode


def wait(torchrun: subprocess.Popen[str], checkpoints: Path, steps: int, then_s: float) -> bool:
    """Wait until `steps` steps are complete, and then; returns whether the program still runs."""
    # By steps and not by time alone: a busy machine may take minutes to reach the first.
    while max(complete(checkpoints), default=0) < steps and torchrun.poll() is None:
        time.sleep(0.01)
    try:
        torchrun.wait(then_s)
    except subprocess.TimeoutExpired:
        return True
    return False


def main() -> None:
    """Parse the command line, kill, compare."""
    from tests.system.test_resume import check_same_run

    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser, kills=10)
    parser.add_argument("--victim", choices=VICTIMS, action="append", help="only this one")
    args = parser.parse_args()
    os.chdir(ROOT)
    args.folder.mkdir(parents=True, exist_ok=True)
    reference, length = args.folder / "reference", args.folder / "seconds"
    if not length.exists():
        began = time.monotonic()
        code = finish(launch(reference), args.folder / "reference.log", [])
        assert code == 0, args.folder / "reference.log"
        length.write_text(str(time.monotonic() - began))
    rng, began, kills = random.Random(args.seed), time.monotonic(), Counter[str]()
    seconds = float(length.read_text())
    number = len(list(args.folder.glob("run*.log")))
    while sum(kills.values()) < args.kills and time.monotonic() - began < args.limit_s:
        run_dir, kept, code = args.folder / f"run{number}", 0, None
        number += 1
        while code != 0:
            process, everyone = launch(run_dir), []
            if sum(kills.values()) < args.kills and time.monotonic() - began < args.limit_s:
                target = rng.randrange(STEPS)
                if wait(process, run_dir / "checkpoints", target, rng.uniform(0, seconds / 3)):
                    victim = rng.choice(args.victim or list(VICTIMS))
                    everyone = kill(process, victim)
                    kills[victim] += bool(everyone)
                    newest = max(complete(run_dir / "checkpoints"), default=0)
                    print(f"{run_dir.name}: killed {victim} after step {newest}", flush=True)
            # A run survives the death of its worker.
            code = finish(process, args.folder / f"{run_dir.name}.log", everyone)
            kept = check_kept(run_dir, kept)
        check_same_run(run_dir, reference)
        print(f"{run_dir.name}: whole; {dict(kills)}", flush=True)
    print(f"{sum(kills.values())} kills of the whole program: none lost")


if __name__ == "__main__":
    main()
