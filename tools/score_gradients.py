"""Which strategy's steps point where success grows, on the real policy and without training.

    R="torchrun --nproc-per-node 1 pretrain_trace.py --config configs/geo_hop_wide_cpu.yaml --rollout-only"
    $R run.name=reference run.steps=40 run.seed=7 allocation.strategy=uniform
    $R run.name=uniform run.steps=16 allocation.strategy=uniform
    $R run.name=trace run.steps=16 allocation.strategy=trace
    python tools/score_gradients.py --reference runs/reference --by hops runs/uniform runs/trace

The gradient ∇J of the mean success J is estimated from the rollouts of the reference: RLOO (arXiv
2402.14740), the sum over a rollout's tokens, without bias. g is the gradient that training would
take from a step of a run, with the run's own advantage, or with --advantage. Printed are

- the alignment E g·∇J / (|∇J| √E|g|²): the gain of success for steps of one length, 1 at best, with
  its standard error over the steps. The noise of ∇J is the same for all runs and is not in it;
- the rollouts with which a run would have the first run's signal a² / (1 − a²), a the alignment;
- with --by FIELD, the slope E g·∇J_k / √E|g|² of the success J_k of the tasks of each value k.

|∇J|² is a product of two independent halves of the reference, so noise does not enlarge it. All
runs must begin with the same policy, and the reference must hold bare rollouts, as `uniform` makes
them, of tasks drawn as they come.
"""

import argparse
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from megatron_trace.allocation import advantage_settings
from megatron_trace.check.load import load_config
from megatron_trace.config import AdvantageConfig, Config, SettingError
from megatron_trace.learning import rows_from_trees
from megatron_trace.learning.estimator import make_estimator
from megatron_trace.policy.policy import Policy
from megatron_trace.report.exemplars import tree_files
from megatron_trace.tree import RolloutTree, load_trees

Floats = NDArray[np.float64]

ALL = "all"


@dataclass(frozen=True)
class Reference:
    """The gradient of success.

    Attributes:
        whole: ∇J, [parameters].
        square: |∇J|², of two independent halves.
        parts: ∇J_k of each value k of the field, or nothing.
    """

    whole: Floats
    square: float
    parts: dict[str, Floats]


@dataclass(frozen=True)
class Projections:
    """What is kept of a run's gradients g, [steps] each.

    Attributes:
        along: g·∇J.
        square: |g|².
        parts: g·∇J_k of each value k of the reference's field.
    """

    along: Floats
    square: Floats
    parts: dict[str, Floats]


def alignment(along: Floats, square: Floats, reference: float) -> float:
    """E g·∇J / (|∇J| √E|g|²).

    Args:
        reference: |∇J|².
    """
    return float(along.mean() / np.sqrt(reference * square.mean()))


def jackknife(along: Floats, square: Floats, reference: float) -> float:
    """Standard error of the alignment (M. Quenouille, Biometrika 43, 1956); NaN of one step."""
    count = len(along)
    if count < 2:
        return float("nan")
    without = np.array(
        [
            alignment(np.delete(along, step), np.delete(square, step), reference)
            for step in range(count)
        ]
    )
    return float(np.sqrt((count - 1) / count * np.square(without - without.mean()).sum()))


def signal(aligned: float) -> float:
    """a² / (1 − a²): signal over noise of a step whose mean gradient points along ∇J."""
    return aligned**2 / (1.0 - aligned**2)


def success_gradient(
    policy: Policy,
    steps: Sequence[Sequence[RolloutTree]],
    settings: AdvantageConfig,
    by: str | None,
) -> Reference:
    """The reference from steps of bare rollouts; the halves are the even and the odd steps."""
    unbiased = replace(settings, name="rloo", merge=False, filter_groups=False, overlong_buffer=0)
    # By the half and the task's value: the sum of the rollouts' gradients, and their number.
    sums: dict[tuple[int, str], Floats] = {}
    counts: dict[tuple[int, str], int] = defaultdict(int)

    def mean(keys: Sequence[tuple[int, str]]) -> Floats:
        return np.sum([sums[key] for key in keys], axis=0) / sum(counts[key] for key in keys)

    for number, trees in enumerate(track(steps, description="reference")):
        values: dict[str, list[RolloutTree]] = defaultdict(list)
        for tree in trees:
            values[ALL if by is None else str(tree.task[by])].append(tree)
        for value, found in values.items():
            key = (number % 2, value)
            rows = rows_from_trees(found, unbiased)
            # The loss is to fall and has the mean over tokens; success is to rise, by rollouts.
            tokens = sum(int(row.learn.sum()) for row in rows)
            part = -tokens * policy.gradient(rows).astype(np.float64)
            sums[key] = sums[key] + part if key in sums else part
            counts[key] += sum(len(tree.rollouts) for tree in found)
    even, odd = (mean([key for key in sums if key[0] == half]) for half in (0, 1))
    names = sorted({value for _, value in sums}, key=_number_first) if by else []
    parts = {name: mean([key for key in sums if key[1] == name]) for name in names}
    return Reference((even + odd) / 2, float(even @ odd), parts)


def _number_first(value: str) -> tuple[float, str]:
    """Numbers in their order, then words."""
    try:
        return float(value), value
    except ValueError:
        return float("inf"), value


def projected(
    policy: Policy,
    steps: Sequence[Sequence[RolloutTree]],
    settings: AdvantageConfig,
    longest: int,
    reference: Reference,
    name: str,
) -> Projections:
    """The gradient of every step of a run, seen from the reference."""
    along, square = [], []
    parts: dict[str, list[float]] = {value: [] for value in reference.parts}
    for trees in track(steps, description=name):
        step = -policy.gradient(rows_from_trees(trees, settings, longest=longest)).astype(
            np.float64
        )
        along.append(float(step @ reference.whole))
        square.append(float(step @ step))
        for value, gradient in reference.parts.items():
            parts[value].append(float(step @ gradient))
    return Projections(
        np.array(along), np.array(square), {value: np.array(seen) for value, seen in parts.items()}
    )


def signals(runs: dict[str, Projections], reference: Reference) -> Table:
    """Alignment and signal, one row for each run."""
    shown = Table("run", "steps", "alignment", "±", "rollouts")
    first = None
    for name, seen in runs.items():
        aligned = alignment(seen.along, seen.square, reference.square)
        first = signal(aligned) if first is None else first
        error = jackknife(seen.along, seen.square, reference.square)
        rollouts = f"{first / signal(aligned):.0%}"
        shown.add_row(name, str(len(seen.along)), f"{aligned:.3f}", f"{error:.3f}", rollouts)
    return shown


def slopes(runs: dict[str, Projections], field: str) -> Table:
    """E g·∇J_k / √E|g|², one row for each value k of `field` and one column for each run."""
    shown = Table(field, *runs)
    values = next(iter(runs.values())).parts
    for value in values:
        means = [seen.parts[value].mean() / np.sqrt(seen.square.mean()) for seen in runs.values()]
        shown.add_row(value, *(f"{slope:.3f}" for slope in means))
    return shown


def read_run(folder: Path, changes: Sequence[str] = ()) -> tuple[Config, list[list[RolloutTree]]]:
    """A run's settings, and the trees of its steps.

    Raises:
        SettingError: there are none, or a change cannot be made.
    """
    config = load_config(str(folder / "config.yaml"), changes)
    files = tree_files(folder).values()
    if not files:
        raise SettingError("RUN", str(folder), "holds no trees: run.save_trees must be true")
    return config, [load_trees(file) for file in files]


def read_reference(folder: Path, by: str | None) -> tuple[Config, list[list[RolloutTree]]]:
    """The reference's settings and trees.

    Raises:
        SettingError: it cannot be one.
    """
    config, steps = read_run(folder)
    if len(steps) < 2:
        raise SettingError("--reference", str(folder), "must hold two steps or more")
    for tree in (tree for trees in steps for tree in trees):
        bare = [rollout.stage == "bare" for rollout in tree.rollouts]
        if not all(bare) or len(bare) < 2:
            remedy = "must hold bare rollouts, two of each task or more, as uniform samples them"
            raise SettingError("--reference", str(folder), remedy)
        if by is not None and by not in tree.task:
            fields = ", ".join(sorted(tree.task))
            raise SettingError("--by", by, f"must be a field of every task; one has {fields}")
    return config, steps


def main() -> None:
    """Read the trees, compute the gradients, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of runs")
    parser.add_argument("--reference", required=True, type=Path, help="run of uniform")
    parser.add_argument("--by", metavar="FIELD", help="field of the tasks, such as hops")
    parser.add_argument("--advantage", metavar="NAME", help="of all runs, instead of their own")
    args = parser.parse_args()
    try:
        config, steps = read_reference(args.reference, args.by)
        # One update from the policy that sampled: no ratio, no clipping, no KL.
        config.learning.batching.updates_per_step = config.learning.batching.epochs = 1
        runs = {}
        for folder in args.runs:
            own, trees = read_run(folder)
            if own.model.path != config.model.path:
                remedy = f"must be the reference's, {config.model.path}"
                raise SettingError(f"model.path of {folder}", own.model.path, remedy)
            settings = advantage_settings(own.allocation, own.learning.advantage)
            settings = replace(settings, name=args.advantage or settings.name)
            make_estimator(settings)
            runs[folder.name] = (trees, settings)
    except SettingError as error:
        parser.error(str(error))
    policy = Policy(config)
    reference = success_gradient(policy, steps, config.learning.advantage, args.by)
    if reference.square <= 0:
        parser.error(f"--reference {args.reference}: too few rollouts, no signal was found in them")
    longest = config.rollout.max_history_tokens
    found = {
        name: projected(policy, trees, settings, longest, reference, name)
        for name, (trees, settings) in runs.items()
    }
    console = Console()
    console.print(signals(found, reference))
    if args.by:
        console.print(slopes(found, args.by))
    print(f"|∇J| {np.sqrt(reference.square):.3f}; rollouts: for the signal of the first run.")


if __name__ == "__main__":
    main()
