"""The first hour on a new machine: what works here, in at most 8 minutes on one GPU.

    python tools/check_gpu.py

Each check is one line: passed, failed or skipped, what was measured or why, and the seconds that it
took. Each group of checks shares a process until one of them fails; so one
failure stops no other check. Needs no package to begin: what is not installed is skipped. The exit
code is 1 if a check has failed.

With --device cpu the same checks compare the CPU with itself, which shows that they run.
"""

import argparse
import dataclasses
import json
import shutil
import sys
import tempfile
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

from gpu_checks.catalogue import GROUPS, all_checks
from gpu_checks.check import Group, Outcome
from gpu_checks.supervise import Supervisor

LIMIT_S = 480.0
"""Seconds for all checks; those that do not fit are skipped."""
COLOURS = {"passed": "\033[32m", "failed": "\033[31m", "skipped": "\033[33m"}
NAME_WIDTH, STATUS_WIDTH, TIME_WIDTH = 30, 8, 8


def chosen(names: Sequence[str] | None) -> list[Group]:
    """The groups with the checks of these names; with all where None."""
    if names is None:
        return list(GROUPS)
    groups = []
    for group in GROUPS:
        checks = tuple(check for check in group.checks if check.name in names)
        if checks:
            groups.append(dataclasses.replace(group, checks=checks))
    return groups


def line(outcome: Outcome, width: int, *, colour: bool) -> str:
    """An outcome as a line of the table; what does not fit is put below, indented."""
    before = NAME_WIDTH + STATUS_WIDTH + TIME_WIDTH
    texts = textwrap.wrap(outcome.text, max(30, width - before - 1)) or [""]
    status = outcome.status.ljust(STATUS_WIDTH)
    if colour:
        status = f"{COLOURS[outcome.status]}{status}\033[0m"
    seconds = f"{outcome.seconds:.1f} s".rjust(TIME_WIDTH - 2)
    first = f"{outcome.name:{NAME_WIDTH}}{status}{seconds}  {texts[0]}"
    return "\n".join([first, *(" " * before + text for text in texts[1:])])


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all outcomes")
    names = [check.name for check in all_checks()]
    parser.add_argument(
        "--only",
        nargs="+",
        choices=names,
        metavar="NAME",
        help=f"only these checks: {', '.join(names)}",
    )
    return parser.parse_args()


def main() -> int:
    """Run the checks; print their outcomes as they come."""
    args = parse()
    begin = time.monotonic()
    work = Path(tempfile.mkdtemp(prefix="check_gpu_"))
    supervisor = Supervisor(args.device, work, begin + LIMIT_S)
    outcomes = []
    try:
        for group in chosen(args.only):
            for outcome in supervisor.run(group):
                outcomes.append(outcome)
                width = shutil.get_terminal_size((120, 24)).columns
                print(line(outcome, width, colour=sys.stdout.isatty()), flush=True)
        failed = [outcome for outcome in outcomes if outcome.status == "failed"]
        counts = {status: [o.status for o in outcomes].count(status) for status in COLOURS}
        summary = ", ".join(f"{count} {status}" for status, count in counts.items())
        print(f"\n{summary} in {time.monotonic() - begin:.0f} s")
        for outcome in failed:
            print(f"\n{outcome.name}:\n{outcome.details}", file=sys.stderr)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if args.json:
            args.json.write_text(
                json.dumps([dataclasses.asdict(outcome) for outcome in outcomes], indent=2) + "\n"
            )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
