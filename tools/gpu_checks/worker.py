"""Runs checks one after the other, in a process that supervise.py has started.

    python -m gpu_checks.worker (cuda|cpu) WORK CHECK ...

Leaves an outcome in WORK/outcomes for each. Ends after the first that fails: a GPU on which a
kernel has failed answers nothing more to this process.
"""

import dataclasses
import importlib
import importlib.util
import json
import sys
import time
import traceback
from pathlib import Path

from gpu_checks.catalogue import all_checks
from gpu_checks.check import Check, Context, Outcome, Skip, Wrong


def run(check: Check, context: Context) -> Outcome:
    """Run one check; every error becomes its outcome."""
    begin = time.monotonic()
    details = ""
    try:
        text = _call(check, context)
        status = "passed"
    except Skip as reason:
        status, text = "skipped", str(reason)
    except Wrong as wrong:
        status, text = "failed", str(wrong)
    except Exception as error:
        status, text = "failed", f"{type(error).__name__}: {first_line(str(error))}"
        details = traceback.format_exc()
    return Outcome(check.name, status, text, time.monotonic() - begin, details)


def _call(check: Check, context: Context) -> str:
    missing = [package for package in check.needs if not is_installed(package)]
    if missing:
        raise Skip(f"not installed: {', '.join(missing)}")
    module = importlib.import_module(f"gpu_checks.{check.module}")
    return getattr(module, check.function)(context)


def is_installed(package: str) -> bool:
    """Whether Python finds a package; imports no more of it than its parents."""
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def first_line(text: str) -> str:
    """The first line that says something, at most 300 characters of it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0][:300] if lines else ""


def outcome_file(work: Path, check: Check) -> Path:
    """Where the outcome of a check appears."""
    return work / "outcomes" / f"{check.name}.json"


def write(outcome: Outcome, file: Path) -> None:
    """Write an outcome; its file appears whole."""
    part = file.with_suffix(".part")
    part.write_text(json.dumps(dataclasses.asdict(outcome)))
    part.rename(file)


def main() -> None:
    """Run the checks that are named."""
    device, work, *names = sys.argv[1:]
    context = Context(device, Path(work))
    checks = {check.name: check for check in all_checks()}
    for name in names:
        outcome = run(checks[name], context)
        write(outcome, outcome_file(context.work, checks[name]))
        if outcome.status == "failed":
            return


if __name__ == "__main__":
    main()
