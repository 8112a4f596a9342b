"""Train steps on packed trees, on packed rows, and in plain PyTorch with `transformers`.

    python tools/bench_train.py [--trees runs/geo_hop_cpu] [--only step deep] [--precision bf16]

Four sides take the same train step: same trees, loss (clipped policy gradient and predictor), AdamW
and gradient clip. Each runs in its own process, and they take steps in turn.

    tree          this project; every token of a tree is computed once
    rows          this project; each rollout by itself, packed end to end
    plain rows    `transformers`, one rollout at a time
    plain padded  `transformers`, rollouts sorted by length, in right-padded micro-batches

What they learn from:

    step          the last trees that the run `--trees` has saved (`make quickstart` makes a run);
                  without it, trees that look like them
    long prompt   16 rollouts from a prompt of 2,000 tokens
    deep          a rollout of 32 turns, continued from every fourth turn
    growth        2 to 64 rollouts from a trunk of 1,000 tokens; only packed trees are measured

tokens: path counts a token for every rollout that has it, unique once for each tree.
tokens/s: path tokens, so that all sides have the same to do.
processor: seconds of all cores. Other work on the machine disturbs them less than wall time.
goal: 1.1 times unique over path tokens, for time and memory of `tree` over `rows`.
memory: the most that a step holds at a time, above what the process holds before it. All rollouts
    are in one micro-batch for that, as micro-batches of equal size need the same memory.
gradient norm, entropy: of the first step. Equal values say that all sides computed the same.
"""

import argparse
import json
import os
import pickle
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from bench_sides import Side, ratios, running, spread, take_turns
from bench_train_rows import waste
from bench_train_trees import (
    LEAVES,
    deep,
    growing,
    like_geo_hop,
    long_prompt,
    path_tokens,
    saved_trees,
    unique_tokens,
)
from rich.console import Console
from rich.table import Table

from megatron_trace.learning.rows import Row, rows_from_trees
from megatron_trace.tree import RolloutTree

SIDES = ("tree", "rows", "plain rows", "plain padded")
SETS = ("step", "long prompt", "deep", "growth")
SLACK = 1.1
"""How much more than its share of the tokens a packed tree may cost."""

Results = dict[str, Side]
"""By side. A side's steps are those on one set of trees."""


@dataclass(frozen=True)
class Work:
    """A set of trees.

    Attributes:
        rows: of all trees.
        unique: tokens, those that rollouts of a tree share counted once.
    """

    rows: list[Row]
    unique: int

    @property
    def path(self) -> int:
        """Tokens of all rows."""
        return path_tokens(self.rows)

    @property
    def share(self) -> float:
        """Unique over path tokens."""
        return self.unique / self.path


def work_of(trees: Sequence[RolloutTree]) -> Work:
    """The rows of `trees`."""
    unique = sum(unique_tokens(rows_from_trees([tree])) for tree in trees)
    return Work(rows_from_trees(trees), unique)


@dataclass(frozen=True)
class Bench:
    """How sides are run.

    Attributes:
        file: pickled rows of every set of trees.
        model: HF folder.
        threads: of a side, on a CPU.
    """

    file: Path
    model: Path
    precision: str
    repeats: int
    threads: int

    def sides(self, names: Sequence[str], tokens: int) -> AbstractContextManager[Results]:
        """The sides `names`, with micro-batches of `tokens` tokens."""
        script = Path(__file__).with_name("bench_train_sides.py")
        start = [sys.executable, "-W", "ignore", script]
        arguments = [self.file, self.model, self.precision, tokens]
        return running({name: [*start, name, *arguments] for name in names}, self.threads)

    def steps(self, sides: Results, name: str) -> Results:
        """The counted steps of `sides` on one set of trees, after one that is not counted."""
        fresh = {side: Side(sides[side].process) for side in sides}
        take_turns(fresh, warm_up=1, repeats=self.repeats, turn=f"step {name}")
        return fresh

    def memory(self, works: Mapping[str, Work]) -> dict[str, dict[str, int]]:
        """Bytes of a step, by set of trees and side."""
        everything = max(work.path for work in works.values())
        found = {}
        with self.sides(("tree", "rows"), everything) as sides:
            for name in works:
                for side in sides.values():
                    # The first step makes the optimizer's state, which stays.
                    side.ask(f"step {name}")
                found[name] = {side: sides[side].ask(f"memory {name}")["bytes"] for side in sides}
        return found


def times_table(results: Mapping[str, Results], works: Mapping[str, Work]) -> Table:
    """A line for each set of trees and side."""
    columns = ("s a step (range)", "processor s", "tokens/s", "gradient norm", "entropy")
    table = Table("trees", "side", *columns, box=None)
    for name, sides in results.items():
        for side, found in sides.items():
            table.add_row(
                name,
                side,
                spread(found.values("seconds"), 3),
                f"{found.median('processor'):.3f}",
                f"{works[name].path / found.median('seconds'):,.0f}",
                f"{found.first['gradient_norm']:.5f}",
                f"{found.first['entropy']:.4f}",
            )
    return table


def goals_table(
    results: Mapping[str, Results],
    works: Mapping[str, Work],
    memory: Mapping[str, Mapping[str, int]],
) -> Table:
    """What packed trees bring, beside the goal."""
    against_rows = ("goal", "tree / rows", "processor", "memory", "MB, tree and rows")
    against_plain = ("speed over plain rows", "over plain padded")
    table = Table("trees", "rollouts", "unique / path", *against_rows, *against_plain, box=None)
    for name, sides in results.items():
        tree, rows, work = sides["tree"], sides["rows"], works[name]
        held = memory[name]
        table.add_row(
            name,
            str(len(work.rows)),
            f"{work.unique:,} / {work.path:,} = {work.share:.2f}",
            f"{SLACK * work.share:.2f}",
            spread(ratios(tree, rows)),
            f"{tree.median('processor') / rows.median('processor'):.2f}",
            f"{held['tree'] / held['rows']:.2f}",
            f"{held['tree'] / 1e6:,.0f} {held['rows'] / 1e6:,.0f}",
            *(spread(ratios(sides[plain], tree)) for plain in ("plain rows", "plain padded")),
        )
    return table


def growth_table(results: Mapping[str, Results], works: Mapping[str, Work]) -> Table:
    """A packed tree's time against its leaves."""
    columns = (
        "unique tokens",
        "path tokens",
        "s a step (range)",
        "processor s",
        "µs of processor a unique token",
    )
    table = Table("trees", *columns, box=None)
    for name, sides in results.items():
        tree, work = sides["tree"], works[name]
        table.add_row(
            name,
            f"{work.unique:,}",
            f"{work.path:,}",
            spread(tree.values("seconds"), 3),
            f"{tree.median('processor'):.3f}",
            f"{1e6 * tree.median('processor') / work.unique:.0f}",
        )
    return table


def waste_table(rows: Sequence[Row], tokens: int) -> Table:
    """What the layouts compute on some data-parallel sizes."""
    columns = ("computed / path tokens", "micro-batches a rank", "busiest rank / mean")
    table = Table("ranks", "layout", *columns, box=None)
    for ranks in (1, 2, 4, 8):
        for layout in ("padded", "rows", "tree"):
            found = waste(rows, tokens, ranks, layout)
            cells = (f"{found.computed:.2f}", str(found.micro_batches), f"{found.imbalance:.3f}")
            table.add_row(str(ranks), layout, *cells)
    return table


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trees", type=Path, help="folder of a run that has saved trees")
    parser.add_argument(
        "--model", type=Path, default=Path("examples/geo_hop/start_policy"), help="HF folder"
    )
    parser.add_argument("--only", nargs="+", choices=SETS, default=SETS, help="sets of trees")
    parser.add_argument("--precision", default="float32", choices=["float32", "bf16", "fp8"])
    parser.add_argument("--micro-batch-tokens", type=int, default=8192)
    parser.add_argument("--repeats", type=int, default=5, help="counted steps of each side")
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count() or 1, help="threads of a side, on a CPU"
    )
    return parser.parse_args()


def main() -> None:
    """Measure all sides on all trees; print the tables."""
    args = parse()
    vocabulary = json.loads((args.model / "config.json").read_text())["vocab_size"]
    sets = {
        "step": like_geo_hop(vocabulary) if args.trees is None else saved_trees(args.trees),
        "long prompt": long_prompt(vocabulary),
        "deep": deep(vocabulary),
    }
    works = {name: work_of(trees) for name, trees in sets.items() if name in args.only}
    growth: dict[str, Work] = {}
    if "growth" in args.only:
        growth = {f"{leaves} leaves": work_of(growing(vocabulary, leaves)) for leaves in LEAVES}
    console = Console(width=180)
    if "step" in works:
        console.print(waste_table(works["step"].rows, args.micro_batch_tokens))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "work.pickle"
        file.write_bytes(pickle.dumps({name: w.rows for name, w in (works | growth).items()}))
        bench = Bench(file, args.model, args.precision, args.repeats, args.threads)
        if growth:
            with bench.sides(("tree",), args.micro_batch_tokens) as sides:
                grown = {name: bench.steps(sides, name) for name in growth}
            console.print(growth_table(grown, growth))
        if works:
            with bench.sides(SIDES, args.micro_batch_tokens) as sides:
                results = {name: bench.steps(sides, name) for name in works}
            console.print(times_table(results, works))
            console.print(goals_table(results, works, bench.memory(works)))


if __name__ == "__main__":
    main()
