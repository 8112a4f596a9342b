"""Time the exact solvers on 100,000 anchors and a budget of 1,000,000, and check the bound.

    python tools/bench_allocation.py

For every case: seconds, and the value missing to the concave upper bound as a share of the largest
gain of one rollout (at most 1 for a floor of 2 or 3, whose only loss is one leftover).
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from megatron_trace.allocation import prefix_value, root_value, solve_prefixes, solve_roots

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

DRAWS: dict[str, Callable[[np.random.Generator, int], Floats]] = {
    "uniform": lambda rng, n: rng.random(n),
    "mostly easy or hard (Beta 0.2, 0.2)": lambda rng, n: rng.beta(0.2, 0.2, n),
    "hundredths, many ties": lambda rng, n: np.round(rng.random(n), 2),
    "all one half": lambda rng, n: np.full(n, 0.5),
}


def upper_bound(values: NDArray[np.float64], budget: int) -> tuple[float, float]:
    """Sum of the `budget` largest slopes of the concave envelope, and the largest slope.

    Args:
        values: value of each anchor by count, [anchors, counts], concave but for its first jump.
    """
    gains = np.diff(values, axis=1)
    # Counts up to the jump gain evenly on the envelope.
    jump = np.argmax(values > 0, axis=1)[0]
    gains[:, :jump] = values[:, [jump]] / jump
    largest = -np.sort(-gains.ravel())[:budget]
    return float(largest.sum()), float(largest[0])


def roots_measured(success: Floats, budget: int, floor: int, counts: Counts) -> tuple[str, str]:
    """Seconds of stage 1, and what its value misses to the bound, as words."""
    begin = time.perf_counter()
    plan = solve_roots(success, budget, floor=floor)
    seconds = time.perf_counter() - begin
    values = root_value(success[:, None], counts)
    bound, gain = upper_bound(np.where(counts < floor, 0.0, values), budget)
    missing = bound - root_value(success, plan).sum()
    return f"{seconds:.2f}", f"{missing / gain:.2e}"


def prefixes_measured(success: Floats, budget: int, counts: Counts) -> tuple[str, str]:
    """The same of stage 2."""
    begin = time.perf_counter()
    plan = solve_prefixes(success, budget)
    seconds = time.perf_counter() - begin
    bound, gain = upper_bound(prefix_value(success[:, None], counts), budget)
    missing = bound - prefix_value(success, plan).sum()
    return f"{seconds:.2f}", f"{missing / gain:.2e}"


def main() -> None:
    """Solve, time and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--anchors", type=int, default=100_000)
    parser.add_argument("--budget", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    counts = np.arange(6 * args.budget // args.anchors)
    table = Table("stage", "predictions", "floor", "seconds", "missing to the bound")
    rng = np.random.default_rng(args.seed)
    for name, draw in DRAWS.items():
        success = draw(rng, args.anchors)
        for floor in (2, 4):
            measured = roots_measured(success, args.budget, floor, counts)
            table.add_row("roots", name, str(floor), *measured)
        table.add_row("prefixes", name, "", *prefixes_measured(success, args.budget, counts))
    Console().print(table)


if __name__ == "__main__":
    main()
