"""Train steps side by side with the same model in plain PyTorch and `transformers`; padding with
and without packing.

    python tools/bench_train.py [--trees runs/geo_hop_cpu] [--model FOLDER] [--precision float32 bf16]

Both sides take the same rows, loss (clipped policy gradient and predictor), AdamW and gradient
clip. Each runs in its own process, and they take steps in turn. The plain side does not pack: its
rows are sorted by length, in right-padded micro-batches of as many tokens. Without --trees the rows
are made up, with lengths and turns as in GeoHop.

tokens/s: tokens of the rows, without padding. MFU: model FLOPs by formula (`model_flops`), over the
rate that this machine reaches on square matrices of the same
    type, measured first; for FP8 over bfloat16's.
speed: over the plain side. Other work on the machine disturbs processor time less than wall time.
gradient norm, entropy: of the first step. Equal values say that both sides computed the same.
"""

import argparse
import json
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench_train_rows import model_flops, read_rows, waste
from rich.console import Console
from rich.table import Table

from megatron_trace.learning.rows import Row

SIDES = ("trace", "transformers")
WARM_UP_STEPS = 2


@dataclass
class Side:
    """One process.

    Attributes:
        rate: FLOP/s that it reached on square matrices.
        first: metrics of its first step.
        seconds, processor: wall and processor seconds of its counted steps.
    """

    process: subprocess.Popen
    rate: float
    first: dict[str, float] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)


def start_side(
    name: str, file: Path, model: Path, precision: str, tokens: int, threads: int
) -> Side:
    """Start a side's process and wait until it is ready."""
    # The sides take turns on the same cores: the threads of the side that waits must not spin.
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
    script = Path(__file__).with_name("bench_train_sides.py")
    arguments = [script, name, file, model, precision, tokens]
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    return Side(process, _answer(process)["matrix_rate"])


def take_step(side: Side, *, counted: bool) -> None:
    """Let a side take one step; keep its metrics if it is the first, and its times if it is
    counted.
    """
    assert side.process.stdin is not None
    side.process.stdin.write("step\n")
    side.process.stdin.flush()
    result = _answer(side.process)
    side.first = side.first or result
    if counted:
        side.seconds.append(result["seconds"])
        side.processor.append(result["processor"])


def _answer(process: subprocess.Popen) -> dict[str, float]:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("{"):
            return json.loads(line)
    raise SystemExit(f"a side ended with exit code {process.wait()}")


def measure(
    file: Path, model: Path, precision: str, *, tokens: int, repeats: int, threads: int
) -> dict[str, Side]:
    """`repeats` counted steps of both sides, in alternating order, after warm-up steps."""
    plain = "bf16" if precision == "fp8" else precision  # there is no plain FP8
    sides = {}
    try:
        for name in SIDES:
            chosen = precision if name == "trace" else plain
            sides[name] = start_side(name, file, model, chosen, tokens, threads)
        for turn in range(repeats + WARM_UP_STEPS):
            # Whoever comes second finds other caches and clock rates, so the order alternates.
            for name in SIDES if turn % 2 else SIDES[::-1]:
                take_step(sides[name], counted=turn >= WARM_UP_STEPS)
    finally:
        for side in sides.values():
            side.process.stdin.close()  # type: ignore[union-attr]
            side.process.wait()
    return sides


def speed_table(
    results: dict[str, dict[str, Side]], rows: Sequence[Row], hf: dict[str, Any]
) -> Table:
    """A line for each precision and side."""
    table = Table(
        "precision",
        "side",
        "s a step (range)",
        "speed (range)",
        "processor s",
        "speed",
        "tokens/s",
        "MFU",
        "gradient norm",
        "entropy",
        box=None,
    )
    tokens, flops = sum(len(row.tokens) for row in rows), model_flops(hf, rows)
    for precision, sides in results.items():
        # Both sides measured the machine's rate; other work on it can only have lowered a
        # measurement.
        rate = max(side.rate for side in sides.values())
        for name, side in sides.items():
            median = statistics.median(side.seconds)
            table.add_row(
                precision,
                name,
                f"{median:.3f} ({min(side.seconds):.3f} to {max(side.seconds):.3f})",
                *speeds(side, sides["transformers"]),
                f"{tokens / median:,.0f}",
                f"{flops / median / rate:.2f} of {rate / 1e9:,.0f} GFLOP/s",
                f"{side.first['gradient_norm']:.5f}",
                f"{side.first['entropy']:.4f}",
            )
    return table


def speeds(side: Side, base: Side) -> tuple[str, str, str]:
    """Three cells: speed over `base` with its range, processor seconds, and speed by processor
    seconds.
    """
    # The range compares steps of the same turn, which other work on the machine disturbs alike.
    each = [one / other for one, other in zip(base.seconds, side.seconds, strict=True)]
    speed = statistics.median(base.seconds) / statistics.median(side.seconds)
    spent = statistics.median(side.processor)
    return (
        f"{speed:.2f} ({min(each):.2f} to {max(each):.2f})",
        f"{spent:.3f}",
        f"{statistics.median(base.processor) / spent:.2f}",
    )


def waste_table(lengths: Sequence[int], tokens: int) -> Table:
    """Padding with and without packing on some data-parallel sizes."""
    table = Table(
        "ranks", "layout", "padding", "micro-batches a rank", "busiest rank / mean", box=None
    )
    for ranks in (1, 2, 4, 8):
        for layout in ("padded", "packed"):
            found = waste(lengths, tokens, ranks, packed=layout == "packed")
            table.add_row(
                str(ranks),
                layout,
                f"{found.padding:.1%}",
                str(found.micro_batches),
                f"{found.imbalance:.3f}",
            )
    return table


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--trees", type=Path, help="folder of a run whose last saved trees are the batch"
    )
    parser.add_argument(
        "--model", type=Path, default=Path("examples/geo_hop/start_policy"), help="HF folder"
    )
    parser.add_argument(
        "--precision", nargs="+", default=["float32", "bf16"], choices=["float32", "bf16", "fp8"]
    )
    parser.add_argument("--micro-batch-tokens", type=int, default=8192)
    parser.add_argument("--rows", type=int, default=128, help="most rows of the batch")
    parser.add_argument("--repeats", type=int, default=7, help="counted steps of each side")
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count() or 1, help="threads of a side, on a CPU"
    )
    return parser.parse_args()


def main() -> None:
    """Measure both sides in every precision; print the tables."""
    args = parse()
    hf = json.loads((args.model / "config.json").read_text())
    rows = read_rows(args.trees, hf["vocab_size"], args.rows)
    lengths = [len(row.tokens) for row in rows]
    console = Console(width=180)
    console.print(
        f"{len(rows)} rows of {min(lengths)} to {max(lengths)} tokens, {sum(lengths)} in all; "
        f"{model_flops(hf, rows) / 1e9:.1f} GFLOP a step"
    )
    console.print(waste_table(lengths, args.micro_batch_tokens))
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.pickle"
        file.write_bytes(pickle.dumps(rows))
        for precision in args.precision:
            results[precision] = measure(
                file,
                args.model,
                precision,
                tokens=args.micro_batch_tokens,
                repeats=args.repeats,
                threads=args.threads,
            )
    console.print(speed_table(results, rows, hf))


if __name__ == "__main__":
    main()
