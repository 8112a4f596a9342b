"""Compare strategies of allocation at equal sampling cost: strategies x budgets x seeds, a table
and a page.

    python tools/compare_allocation.py --strategies uniform trace vip --seeds 0-4 --config
    configs/geo_hop_cpu.yaml python tools/compare_allocation.py --strategies uniform trace --seeds
    0-9 --simulate --world spread=0.6 python tools/compare_allocation.py --strategies uniform \\
        --variant big=allocation.strategy=uniform,allocation.group=16
    python tools/compare_allocation.py --report-only --results docs/results/geo_hop

Each trial of the grid is a run of the program, as a user would start it, or a simulation. A
finished trial is one small JSON file in --results and is never run again. A run that was cut off
continues where it stopped. So Ctrl-C loses nothing: give the same command again. The table and the
page are made from all JSON files in --results. Settings for all trials stand after --.
docs/comparison.md says more.

Exit code 0; 1 where a trial failed; 2 for a wrong setting; 130 after Ctrl-C.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.text import Text

from megatron_trace.compare.admission import check_trials
from megatron_trace.compare.agreement import check_agreement
from megatron_trace.compare.comparison_page import write_comparison
from megatron_trace.compare.footnotes import footnotes
from megatron_trace.compare.grid import (
    OWN,
    Trial,
    make_grid,
    parse_seeds,
    parse_variant,
    refuse_own,
    strategy_variant,
)
from megatron_trace.compare.jobs import start
from megatron_trace.compare.measures import HELD_STILL
from megatron_trace.compare.record import Record, read_records
from megatron_trace.compare.results_table import terminal_table
from megatron_trace.compare.runner import Interrupted, work_through
from megatron_trace.compare.summary import summarise, trained
from megatron_trace.compare.sweep import Sweep, common_config
from megatron_trace.config import SettingError
from megatron_trace.report.words import console


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The command line, and the settings after --."""
    own, overrides = list(argv), []
    # What follows -- are settings: argparse knows none of them.
    if "--" in own:
        place = own.index("--")
        own, overrides = own[:place], own[place + 1 :]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_grid_options(parser)
    add_output_options(parser)
    add_simulation_options(parser)
    args = parser.parse_args(own)
    args.out = args.out or Path("runs/simulation" if args.simulate else "runs/comparison")
    return args, overrides


def add_grid_options(parser: argparse.ArgumentParser) -> None:
    """What is compared."""
    parser.add_argument(
        "--config", default="configs/geo_hop_cpu.yaml", help="YAML file of the runs"
    )
    parser.add_argument(
        "--strategies",
        nargs="+",
        default=[],
        metavar="NAME",
        help="short for variants of that name",
    )
    parser.add_argument(
        "--variant",
        action="append",
        default=[],
        metavar="NAME=SETTINGS",
        help="name=section.setting=value,...",
    )
    parser.add_argument("--seeds", nargs="+", default=["0-4"], help="such as 0-4 7 (default: 0-4)")
    parser.add_argument(
        "--budgets", nargs="+", type=int, help="allocation.budget of a step (default: the file's)"
    )
    parser.add_argument(
        "--total",
        type=int,
        help="budget of a whole run, in allocation.unit (default: the file's steps)",
    )
    parser.add_argument(
        "--baseline", default="uniform", help="variant that the others are tested against"
    )


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """How the runs are done, and where everything goes."""
    parser.add_argument(
        "--out",
        type=Path,
        help="folder of runs, logs and the page (default: runs/comparison; runs/simulation with --simulate)",
    )
    parser.add_argument(
        "--results", type=Path, help="folder of the JSON files (default: OUT/results)"
    )
    parser.add_argument("--page", type=Path, help="the HTML file (default: OUT/comparison.html)")
    parser.add_argument("--jobs", type=int, default=1, help="trials at once")
    parser.add_argument(
        "--ranks", type=int, default=1, help="train ranks of a run (torchrun --nproc-per-node)"
    )
    parser.add_argument(
        "--keep", action="store_true", help="keep checkpoints and policies of finished runs"
    )
    parser.add_argument(
        "--report-only", action="store_true", help="run nothing; table and page from the JSON files"
    )


def add_simulation_options(parser: argparse.ArgumentParser) -> None:
    """What belongs to the simulator."""
    parser.add_argument(
        "--simulate", action="store_true", help="in the simulator instead of the real stack"
    )
    parser.add_argument(
        "--world", nargs="+", default=[], metavar="NAME=VALUE", help="knobs of the simulated world"
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=100,
        help="simulated steps measured with the policy held still",
    )
    parser.add_argument(
        "--step-size", type=float, default=0.05, help="learning rate of the simulated policy"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing, then report."""
    argv = sys.argv[1:] if argv is None else argv
    args, overrides = parse(argv)
    out = console()
    try:
        sweep = sweep_of(args, overrides)
        failures = {} if args.report_only else run(args, sweep, out)
        report(args, sweep, out, command="python tools/compare_allocation.py " + shlex.join(argv))
    except SettingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Interrupted:
        print("interrupted; give the same command to continue", file=sys.stderr)
        return 130
    for name, reason in failures.items():
        print(f"{name} failed: {reason}", file=sys.stderr)
    return 1 if failures else 0


def sweep_of(args: argparse.Namespace, overrides: Sequence[str]) -> Sweep:
    """What all trials share.

    Raises:
        SettingError: a number has the wrong sign, a knob of the world cannot be, or a setting is
            the comparison's own.
    """
    refuse_own(overrides, OWN)
    for name in ("jobs", "ranks", "repeats", "step_size", "total"):
        value = getattr(args, name)
        if value is not None and value <= 0:
            raise SettingError("--" + name.replace("_", "-"), value, "must be positive")
    # Only where it is asked for: the simulator's imports take a while.
    world = None
    if args.simulate:
        from megatron_trace.compare.simulated import parse_world

        world = parse_world(args.world)
    elif args.world:
        raise SettingError("--world", args.world[0], "belongs to --simulate")
    return Sweep(
        config=args.config,
        out=args.out,
        results=args.results or args.out / "results",
        overrides=tuple(overrides),
        total=args.total,
        world=world,
        ranks=args.ranks,
        keep=args.keep,
        repeats=args.repeats,
        step_size=args.step_size,
    )


def run(args: argparse.Namespace, sweep: Sweep, out: Console) -> dict[str, str]:
    """Do the trials that have no record yet; returns what went wrong.

    Raises:
        SettingError: a trial cannot work; nothing has started.
        Interrupted: the comparison was asked to end.
    """
    trials = grid_of(args, sweep)
    # Before the first trial starts: a grid takes hours, and its last variant may have a wrong
    # setting.
    check_trials(trials, sweep)
    check_baseline(args.baseline, trials, read_records(sweep.results))
    missing = [trial for trial in trials if not sweep.result_file(trial).exists()]
    out.print(Text(f"{len(trials)} trials, {len(trials) - len(missing)} of them done"))
    return (
        work_through(missing, partial(start, sweep=sweep), jobs=args.jobs, console=out)
        if missing
        else {}
    )


def grid_of(args: argparse.Namespace, sweep: Sweep) -> list[Trial]:
    """The trials that the command line asks for.

    Raises:
        SettingError: it asks for none, or is written wrongly.
    """
    variants = [*map(strategy_variant, args.strategies), *map(parse_variant, args.variant)]
    if not variants:
        raise SettingError("--strategies", [], "name strategies, or variants with --variant")
    budgets = args.budgets or [common_config(sweep).allocation.budget]
    for budget in budgets:
        if budget <= 0:
            raise SettingError("--budgets", budget, "must be positive")
    return make_grid(variants, budgets, parse_seeds(args.seeds))


def check_baseline(baseline: str, trials: Sequence[Trial], records: Sequence[Record]) -> None:
    """Refuse a baseline of which there is no result, and will be none.

    Raises:
        SettingError: it is no variant of the trials or records.
    """
    planned = [trial.variant.name for trial in trials]
    names = dict.fromkeys([*planned, *(record.variant for record in records)])
    if baseline not in names:
        remedy = f"is none of the variants; name one of {', '.join(names)}"
        raise SettingError("--baseline", baseline, remedy)


def report(args: argparse.Namespace, sweep: Sweep, out: Console, command: str) -> None:
    """Table, notes and page, of all records there are.

    Raises:
        SettingError: the folder of results holds something else, or results that cannot be
            compared.
    """
    records = read_records(sweep.results)
    if not records:
        if args.report_only:
            raise SettingError("--results", str(sweep.results), "holds no results")
        return
    check_agreement(sweep.results, records)
    if args.report_only:
        check_baseline(args.baseline, [], records)
    summaries = summarise(records, args.baseline)
    simulated = records[0].kind == "simulated"
    if trained(summaries) or not simulated:
        out.print(terminal_table(summaries))
    if simulated:
        title = "the policy held still"
        out.print(terminal_table(summaries, HELD_STILL, tests=False, title=title))
    for note in footnotes(summaries, args.baseline, simulated):
        out.print(Text(f"- {note}", style="dim"))
    page = write_comparison(
        args.page or args.out / "comparison.html", records, args.baseline, command
    )
    out.print(Text(str(page)))


# Simulations are spawned processes, which import this file: without the guard each would start the
# whole grid.
if __name__ == "__main__":
    sys.exit(main())
