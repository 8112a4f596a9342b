"""Evaluate a policy on benchmarks, on the fleet that training uses.

    python tools/evaluate.py --config configs/geo_hop_wide_cpu.yaml --rollouts 4 --out evaluation \\
        --model runs/trace/policy --benchmarks '2 hops=data/geo_hop_wide/heldout_2-*.tar'

Without --benchmarks, all sets of data.heldout are played; without --model, the policy of the
configuration. Writes OUT/items.jsonl, a line for each task with every rollout's reward, turns,
tokens and text, and OUT/scores.json; prints a table. Intervals are bootstrapped over the tasks at
95 %.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from megatron_trace.check.chat import load_codec
from megatron_trace.check.load import load_config
from megatron_trace.check.tasks import check_tasks, read_tasks
from megatron_trace.compare.statistics import interval
from megatron_trace.config import Config, SettingError
from megatron_trace.config.sources import heldout_sources
from megatron_trace.files.atomic import whole_file, write_text
from megatron_trace.models.chat import TextCodec
from megatron_trace.models.folders import is_checkpoint
from megatron_trace.report.progress import RunProgress
from megatron_trace.rollout.evaluation import Item, mean_parts, play
from megatron_trace.rollout.fleet import Fleet
from megatron_trace.rollout.scores import pass_at
from megatron_trace.rollout.types import SampledRollout
from megatron_trace.supervise.health import UnhealthyRun

# As in a run.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

ALL = "all"

WIDTH = 110
"""Characters of the table, in a narrower terminal too."""


def scores(items: Sequence[Item], rollouts: int) -> dict[str, Any]:
    """What the items of one benchmark came to.

    Args:
        rollouts: of each task.

    Returns:
        Mean and interval of avg@k; pass@k; the parts of the rewards; means over the rollouts of
        turns and sampled tokens; the share of malformed turns; how many calls of tools failed, and rollouts.
    """
    played = [item for item in items if item.rollouts]
    ended = [rollout for item in played for rollout in item.rollouts]
    turns = [turn for rollout in ended for turn in rollout.turns]
    success = interval([float(np.mean(item.rewards)) for item in played])
    return {
        "tasks": len(played),
        f"avg@{rollouts}": success.mean,
        "low": success.low,
        "high": success.high,
        **(pass_at([item.rewards for item in played], rollouts) if rollouts > 1 else {}),
        **mean_parts(played),
        "turns": len(turns) / max(1, len(ended)),
        "tokens": sum(len(turn.action_ids) for turn in turns) / max(1, len(ended)),
        "malformed": float(np.mean([turn.malformed for turn in turns])) if turns else 0.0,
        "tool errors": sum(turn.tool_errors for turn in turns),
        "failed": sum(item.failed for item in items),
    }


def line_of(item: Item, codec: TextCodec) -> dict[str, Any]:
    """A task and its rollouts, as a line of items.jsonl."""

    def told(rollout: SampledRollout) -> dict[str, Any]:
        last = rollout.turns[-1]
        ids = [id for turn in rollout.turns for id in turn.action_ids + turn.observation_ids]
        return {
            "reward": last.reward,
            "parts": last.parts,
            "turns": len(rollout.turns),
            "tokens": sum(len(turn.action_ids) for turn in rollout.turns),
            "malformed": sum(turn.malformed for turn in rollout.turns),
            "tool_errors": sum(turn.tool_errors for turn in rollout.turns),
            "text": codec.decode(ids),
        }

    return {
        "benchmark": item.set_name,
        "id": item.task["id"],
        "failed": item.failed,
        "rollouts": [told(rollout) for rollout in item.rollouts],
    }


def table_of(found: dict[str, dict[str, Any]]) -> Table:
    """A row for each benchmark."""
    names = list(dict.fromkeys(name for one in found.values() for name in one))
    shown = [name for name in names if name not in ("low", "high")]
    table = Table(box=None, pad_edge=False)
    for title in ("benchmark", *(_title(name) for name in shown)):
        table.add_column(title, no_wrap=True)
    for benchmark, one in found.items():
        table.add_row(benchmark, *(_cell(name, one) for name in shown))
    return table


def _title(name: str) -> str:
    return f"{name}, 95 %" if name.startswith("avg@") else name


def _cell(name: str, one: dict[str, Any]) -> str:
    if name not in one:
        return ""
    value = one[name]
    if name.startswith("avg@"):
        return f"{value:.3f}, {one['low']:.2f}–{one['high']:.2f}"
    if name in ("turns", "tokens"):
        return f"{value:.1f}"
    return str(value) if isinstance(value, int) else f"{value:.3f}"


@contextmanager
def hf_folder(model: Path) -> Iterator[Path]:
    """An HF folder of the policy: `model` itself, or a copy of a checkpoint."""
    if not is_checkpoint(model):
        yield model
        return
    # It imports Megatron, which only checkpoints need.
    from megatron_trace.policy.convert.to_hf import to_hf

    with tempfile.TemporaryDirectory(prefix="evaluate-") as folder:
        out = Path(folder) / "policy"
        to_hf(model, out, lambda done, total: None)
        yield out


def run(config: Config, rollouts: int, out: Path) -> None:
    """Play, write and print.

    Raises:
        SettingError: a benchmark or a task cannot be used.
        UnhealthyRun: too many rollouts failed in the environment.
    """
    console = Console()
    sets = {one.name: read_tasks(config, one) for one in heldout_sources(config.data)}
    check_tasks(config, list(sets.values()))
    tasks = {name: one.tasks[: config.evaluation.tasks] for name, one in sets.items()}
    with RunProgress(1, done=0, console=console, beat=lambda *_: None) as progress:
        progress.phase("starting the fleet")
        fleet = Fleet(config, config.model.path)
        try:
            fleet.wait()
            items, attempts = play(fleet, tasks, progress, rollouts, config.stop.failed)
        finally:
            fleet.close()
    for line in attempts.tell():
        console.print(line)
    codec = load_codec(config)
    out.mkdir(parents=True, exist_ok=True)
    with whole_file(out / "items.jsonl") as partial, partial.open("w", encoding="utf-8") as file:
        for item in items:
            file.write(json.dumps(line_of(item, codec), ensure_ascii=False) + "\n")
    found = {
        name: scores([item for item in items if item.set_name == name], rollouts) for name in tasks
    }
    if len(found) > 1:
        found[ALL] = scores(items, rollouts)
    write_text(out / "scores.json", json.dumps(found, indent=1) + "\n")
    # A file or a pipe has no width, for which rich takes 80 characters and cuts numbers.
    Console(width=max(console.width, WIDTH)).print(table_of(found))
    console.print(f"{out / 'items.jsonl'}\n{out / 'scores.json'}")


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate what the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", help="configuration of the environment and the fleet")
    parser.add_argument("--model", type=Path, help="HF folder or checkpoint (default: model.path)")
    parser.add_argument(
        "--benchmarks", nargs="+", default=[], metavar="NAME=PATTERN", help="files of tasks"
    )
    parser.add_argument("--rollouts", type=int, default=1, help="of each task")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    args, overrides = parser.parse_known_args(argv)
    try:
        config = load_config(args.config, overrides)
        for benchmark in args.benchmarks:
            name, equals, pattern = benchmark.partition("=")
            if not (name and equals and pattern):
                raise SettingError("--benchmarks", benchmark, "must be NAME=PATTERN")
        if args.benchmarks:
            config.data.heldout = dict(one.split("=", 1) for one in args.benchmarks)
        if not config.data.heldout:
            raise SettingError("data.heldout", {}, "name benchmarks here or by --benchmarks")
        if args.rollouts < 1:
            raise SettingError("--rollouts", args.rollouts, "must be at least 1")
        with hf_folder(args.model or Path(config.model.path)) as model:
            config.model.path = str(model)
            run(config, args.rollouts, args.out)
    except (SettingError, UnhealthyRun, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
