"""Train steps side by side with the same model in plain PyTorch and `transformers`; padding with and without packing.

    python tools/bench_train.py [--trees runs/geo_hop_cpu] [--model FOLDER] [--precision float32 bf16]

Both sides take the same rows, loss (clipped policy gradient and predictor), AdamW and gradient clip, each in a process
of its own, a step each in turn. The plain side packs nothing: rows sorted by length in right-padded micro-batches of
as many tokens. Tokens are those of the rows, without padding. Model FLOPs are counted by formula (`model_flops`) and
set against the rate that this machine reaches on square matrices of the same type, measured first; FP8 is set against
bfloat16's. Speeds are to the plain side; processor time is disturbed less by other work on the machine. Equal gradient
norms and entropies of the first step say that both sides computed the same. Without --trees the rows are made up:
lengths and turns as in GeoHop.
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

import numpy as np
from bench_train_sides import padded_plan
from rich.console import Console
from rich.table import Table

from megatron_trace.learning.packing import Packing, plan_micro_batches
from megatron_trace.learning.rows import Row, rows_from_trees
from megatron_trace.models.architecture import head_width, key_value_heads, number_of_experts
from megatron_trace.tree import load_trees

SIDES = ("trace", "transformers")


@dataclass
class Side:
    """One process: wall and processor seconds of its repetitions, and what its first step gave."""

    process: subprocess.Popen
    rate: float
    first: dict[str, float] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)


def made_up_rows(count: int, vocabulary: int, seed: int = 0) -> list[Row]:
    """`count` rollouts of 2 to 6 turns, 30 to 350 tokens long; one in eight teaches the policy nothing."""
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        parts = [np.zeros(generator.integers(20, 35), dtype=bool)]
        anchors = [len(parts[0]) - 1]
        for _ in range(int(generator.integers(1, 6))):
            action = np.ones(generator.integers(8, 22), dtype=bool)
            parts += [action, np.zeros(generator.integers(15, 45), dtype=bool)]
            anchors.append(sum(map(len, parts)) - 1)
        parts.append(np.ones(generator.integers(8, 22), dtype=bool))
        learn = np.concatenate(parts)
        predict = np.zeros(len(learn), dtype=bool)
        predict[anchors] = True
        advantage = generator.normal() if number % 8 else 0.0
        rows.append(
            Row(
                tokens=generator.integers(0, vocabulary - 4, len(learn)),
                learn=learn,
                advantage=(learn * advantage).astype(np.float32),
                sampler_logprob=(learn * -1.0).astype(np.float32),
                predict=predict,
                target=(predict * 0.5).astype(np.float32),
            )
        )
    return rows


def model_flops(hf: dict[str, Any], rows: Sequence[Row]) -> float:
    """Floating-point operations that one train step on `rows` needs, without padding and recomputation.

    A token meets 2 operations per weight of its layers' matrices and, at position t, 4·t·heads·head_dim in each
    layer's attention; a learned token's hidden state 2·hidden·vocabulary more. The backward pass takes twice as much,
    where a row teaches the policy. The predictor, norms and embeddings are left out.
    """
    hidden, queries = hf["hidden_size"], hf["num_attention_heads"] * head_width(hf)
    width = hf["intermediate_size"]
    if number_of_experts(hf):
        width = hf["moe_intermediate_size"] * hf["num_experts_per_tok"]
    attention = 2 * hidden * (queries + key_value_heads(hf) * head_width(hf))
    layer = attention + 3 * hidden * width
    total = 0.0
    for row in rows:
        length = len(row.tokens)
        forward = hf["num_hidden_layers"] * (
            2 * layer * length + 2 * queries * length * (length + 1)
        )
        forward += 2 * hidden * hf["vocab_size"] * int(row.learn.sum())
        total += forward * (3 if row.advantage.any() else 1)
    return total


def start_side(
    name: str, file: Path, model: Path, precision: str, tokens: int, threads: int
) -> Side:
    """Start a side's process and wait until it is ready."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
    script = Path(__file__).with_name("bench_train_sides.py")
    command = [
        sys.executable,
        "-W",
        "ignore",
        str(script),
        name,
        str(file),
        str(model),
        precision,
        str(tokens),
    ]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    return Side(process, _answer(process)["matrix_rate"])


def take_step(side: Side, *, counted: bool) -> None:
    """One step of a side; the first is not counted."""
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
    """Both sides' steps, in turns of alternating order, after two each that are not counted."""
    plain = "bf16" if precision == "fp8" else precision  # there is no plain FP8
    sides = {}
    try:
        for name in SIDES:
            chosen = precision if name == "trace" else plain
            sides[name] = start_side(name, file, model, chosen, tokens, threads)
        for turn in range(repeats + 2):
            for name in SIDES if turn % 2 else SIDES[::-1]:
                take_step(sides[name], counted=turn > 1)
    finally:
        for side in sides.values():
            side.process.stdin.close()  # type: ignore[union-attr]
            side.process.wait()
    return sides


def speed_table(
    results: dict[str, dict[str, Side]], rows: Sequence[Row], hf: dict[str, Any]
) -> Table:
    """A line for each precision and side."""
    tokens, flops = sum(len(row.tokens) for row in rows), model_flops(hf, rows)
    columns = (
        "precision",
        "side",
        "s a step (range)",
        "speed (range)",
        "processor s",
        "speed",
        "tokens/s",
        "MFU",
    )
    table = Table(*columns, "gradient norm", "entropy", box=None)
    for precision, sides in results.items():
        rate, base = max(side.rate for side in sides.values()), sides["transformers"]
        for name, side in sides.items():
            median, spent = statistics.median(side.seconds), statistics.median(side.processor)
            speeds = [one / other for one, other in zip(base.seconds, side.seconds, strict=True)]
            table.add_row(
                precision,
                name,
                f"{median:.3f} ({min(side.seconds):.3f} to {max(side.seconds):.3f})",
                f"{statistics.median(base.seconds) / median:.2f} ({min(speeds):.2f} to {max(speeds):.2f})",
                f"{spent:.3f}",
                f"{statistics.median(base.processor) / spent:.2f}",
                f"{tokens / median:,.0f}",
                f"{flops / median / rate:.2f} of {rate / 1e9:,.0f} GFLOP/s",
                f"{side.first['gradient_norm']:.5f}",
                f"{side.first['entropy']:.4f}",
            )
    return table


def waste(
    lengths: Sequence[int], tokens: int, ranks: int, *, packed: bool
) -> tuple[float, int, float]:
    """Share of the computed tokens that is padding, micro-batches of a rank, and the busiest rank's work over the mean.

    Padded: rows sorted by length, dealt to the ranks in snake order. Packed: what training does. Work is counted in
    computed tokens; dummy micro-batches, with which ranks keep step, count as one token.
    """
    everything = list(range(len(lengths)))
    if packed:
        plan = plan_micro_batches(
            lengths, everything, ranks=ranks, packing=Packing(capacity=tokens)
        )
        work = [[sum(lengths[index] for index in batch) or 1 for batch in rank] for rank in plan]
    else:
        order = sorted(everything, key=lambda index: -lengths[index])
        seats = [*range(ranks), *reversed(range(ranks))]
        dealt: list[list[int]] = [[] for _ in range(ranks)]
        for position, index in enumerate(order):
            dealt[seats[position % len(seats)]].append(index)
        batches = [padded_plan(lengths, rank, tokens) for rank in dealt]
        work = [[len(batch) * lengths[batch[0]] for batch in rank] for rank in batches]
        most = max(map(len, work))
        work = [rank + [1] * (most - len(rank)) for rank in work]
    computed = [sum(rank) for rank in work]
    return 1 - sum(lengths) / sum(computed), len(work[0]), max(computed) * ranks / sum(computed)


def waste_table(lengths: Sequence[int], tokens: int) -> Table:
    """Padding with and without packing on some data-parallel sizes."""
    table = Table(
        "ranks", "layout", "padding", "micro-batches a rank", "busiest rank / mean", box=None
    )
    for ranks in (1, 2, 4, 8):
        for layout in ("padded", "packed"):
            share, count, busiest = waste(lengths, tokens, ranks, packed=layout == "packed")
            table.add_row(str(ranks), layout, f"{share:.1%}", str(count), f"{busiest:.3f}")
    return table


def read_rows(trees: Path | None, vocabulary: int, most: int) -> list[Row]:
    """The rows of the last step of a run's saved trees, or made-up ones; at most `most`."""
    if trees is None:
        return made_up_rows(most, vocabulary)
    files = sorted(trees.glob("trees/step_*.jsonl.gz"))
    if not files:
        raise SystemExit(f"{trees} holds no trees/step_*.jsonl.gz; name a run's folder")
    return rows_from_trees(load_trees(files[-1]))[:most]


def main() -> None:
    """Parse the command line, measure, print."""
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
    args = parser.parse_args()
    hf = json.loads((args.model / "config.json").read_text())
    rows = read_rows(args.trees, hf["vocab_size"], args.rows)
    lengths = [len(row.tokens) for row in rows]
    console = Console(width=180)
    console.print(
        f"{len(rows)} rows of {min(lengths)} to {max(lengths)} tokens, {sum(lengths)} in all; "
        f"{model_flops(hf, rows) / 1e9:.1f} GFLOP a step"
    )
    console.print(waste_table(lengths, args.micro_batch_tokens))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.pickle"
        file.write_bytes(pickle.dumps(rows))
        results = {
            precision: measure(
                file,
                args.model,
                precision,
                tokens=args.micro_batch_tokens,
                repeats=args.repeats,
                threads=args.threads,
            )
            for precision in args.precision
        }
    console.print(speed_table(results, rows, hf))


if __name__ == "__main__":
    main()
