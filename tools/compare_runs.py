"""Compare finished runs: held-out success and effective ratio, a line each, and the mean of each strategy.

python tools/compare_runs.py runs/trace-0 runs/uniform-0 ...
"""

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from megatron_trace.training.history import History, read_history

COLUMNS = ("start", "end", "gain", "effective ratio", "of bare rollouts", "rollouts", "tokens")


def numbers(history: History) -> list[float]:
    """The columns of one run; ratios are means over all its steps."""
    success = history.evaluation("mean")
    rollouts = history.total("bare_rollouts") + history.total("continuations")
    ratio, bare = (
        float(np.mean(history.series(name)[1])) for name in ("effective_ratio", "effective_ratio_bare")
    )
    return [
        success[0],
        success[-1],
        success[-1] - success[0],
        ratio,
        bare,
        rollouts,
        history.total("sampled_tokens"),
    ]


def shown(values: list[float]) -> list[str]:
    """Shares with three digits, counts with none."""
    return [f"{value:.3f}" if column < 5 else f"{value:,.0f}" for column, value in enumerate(values)]


def main() -> None:
    """Read the runs and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    args = parser.parse_args()
    table = Table("run", "strategy", "seed", *COLUMNS)
    by_strategy: dict[str, list[list[float]]] = {}
    for run_dir in args.runs:
        history = read_history(run_dir)
        strategy, seed = history.config["allocation"]["strategy"], history.config["run"]["seed"]
        by_strategy.setdefault(strategy, []).append(numbers(history))
        table.add_row(run_dir.name, strategy, str(seed), *shown(by_strategy[strategy][-1]))
    table.add_section()
    for strategy, runs in by_strategy.items():
        table.add_row("mean", strategy, f"{len(runs)} runs", *shown(list(np.mean(runs, axis=0))))
    Console().print(table)


if __name__ == "__main__":
    main()
