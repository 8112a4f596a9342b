"""What a call of the sandbox costs: milliseconds with one call in flight and with many.

    OMP_NUM_THREADS=1 python tools/bench_sandbox.py

Each call begins in a new process of a sandbox, which all calls share. The time of a call is that
which a thread waits for it: with many in flight it holds the wait for a processor.
"""

import argparse
import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

from rich.console import Console
from rich.table import Table

from megatron_trace.envs.sandbox import Sandbox

CODES = {
    "print": "print(6 * 7)",
    "sympy": "import sympy as sp; x = sp.Symbol('x'); print(sp.solve(x**2 - 5*x + 6, x))",
}


def measure(sandbox: Sandbox, code: str, calls: int, in_flight: int) -> list[float]:
    """Seconds of each call, in order.

    Args:
        in_flight: threads that call at the same time.
    """

    def call(_: int) -> float:
        begin = time.perf_counter()
        outcome = sandbox.run(code)
        assert outcome.status == "ok", outcome
        return time.perf_counter() - begin

    with ThreadPoolExecutor(in_flight) as pool:
        return sorted(pool.map(call, range(calls)))


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=500, help="calls of each row")
    parser.add_argument("--isolation", default="namespaces", choices=["namespaces", "process"])
    settings = parser.parse_args()
    begin = time.perf_counter()
    sandbox = Sandbox(size=64, isolation=settings.isolation)
    started_s = time.perf_counter() - begin
    table = Table("code", "in flight", "median ms", "p99 ms", "calls/s")
    for name, code in CODES.items():
        for in_flight in (1, 64):
            measure(sandbox, code, in_flight, in_flight)
            begin = time.perf_counter()
            times = measure(sandbox, code, settings.calls, in_flight)
            rate = settings.calls / (time.perf_counter() - begin)
            p99 = times[min(int(0.99 * len(times)), len(times) - 1)]
            median = statistics.median(times)
            cells = (f"{1000 * median:.1f}", f"{1000 * p99:.1f}", f"{rate:.0f}")
            table.add_row(name, str(in_flight), *cells)
    sandbox.close()
    Console().print(table)
    load = os.getloadavg()[0]
    print(f"started in {started_s:.1f} s; {os.cpu_count()} cores, load average {load:.1f}")


if __name__ == "__main__":
    main()
