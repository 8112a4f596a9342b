"""Look at the rollout trees of a step: a table of them all, one in the terminal, or one as a
picture.

python tools/view_trees.py runs/trace --step 12 python tools/view_trees.py runs/trace --step 12
--task geo_hop/train/3/00042 --svg tree.svg
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from megatron_trace.files.atomic import write_text
from megatron_trace.report.exemplars import tree_files
from megatron_trace.report.history import decoder, read_history
from megatron_trace.report.metrics import bare_rewards, is_bare_mixed
from megatron_trace.report.tree_drawing import draw_tree
from megatron_trace.report.tree_text import (
    Decode,
    action_parts,
    gold,
    outcome,
    question,
    stage_of,
    turn_text,
)
from megatron_trace.tree import ROOT, RolloutTree, by_histories, leaf_statistics, load_trees
from megatron_trace.tree.backup import is_mixed


def table_of(trees: Sequence[RolloutTree], decode: Decode) -> Table:
    """One line per tree. The id is whole, since `--task` asks for it; the question takes what room
    is left.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    table.add_column("task", no_wrap=True)
    for name in ("predicted", "bare", "continued", "success", "contrast"):
        table.add_column(name, no_wrap=True)
    # Only a column that may wrap gives room to the others. The texts do not wrap.
    table.add_column("question")
    for tree in trees:
        prediction, bare = tree.turns[ROOT].prediction, bare_rewards(tree)
        contrast = "bare" if is_bare_mixed(tree) else "continued" if is_mixed(tree) else "none"
        table.add_row(
            Text(str(tree.task.get("id", ""))),
            "" if prediction is None else f"{prediction:.2f}",
            f"{sum(reward > 0.5 for reward in bare)}/{len(bare)}",
            str(len(tree.rollouts) - len(bare)),
            f"{leaf_statistics(tree)[1][ROOT]:.2f}",
            contrast,
            Text(question(tree, decode), no_wrap=True, overflow="ellipsis"),
        )
    return table


def terminal_tree(tree: RolloutTree, decode: Decode, *, full: bool = False) -> Tree:
    """`tree` for the terminal; with `full`, every turn with its whole text."""
    _, success, _ = leaf_statistics(tree)
    head = Text()
    head.append(question(tree, decode), style="bold")
    head.append(f"\ngold answer {gold(tree.task)} · {outcome(tree)}", style="dim")
    # A parent comes before its children in `turns`: its branch is there when theirs are added.
    branches = [Tree(head)]
    for index, turn in enumerate(tree.turns[1:], start=1):
        text = turn_line(tree, index, decode, full=full)
        text.append(f"  {success[index]:.2f}", style=_color(float(success[index])))
        if turn.prediction is not None:
            text.append(f"  predicted {turn.prediction:.2f}", style="dim")
        guide = "blue" if stage_of(tree, index) == "continuation" else "dim"
        branches.append(branches[turn.parent].add(text, guide_style=guide))
    return branches[ROOT]


def turn_line(tree: RolloutTree, index: int, decode: Decode, *, full: bool) -> Text:
    """What a turn did, marked where a continuation sampled it."""
    turn = tree.turns[index]
    kind, content = action_parts(decode(turn.action_ids))
    text = Text()
    if stage_of(tree, index) == "continuation":
        text.append("» ", style="bold blue")
    text.append("malformed " if turn.malformed else f"{kind} ", style="dim")
    text.append(turn_text(tree, index, decode) if full else content)
    return text


def _color(success: float) -> str:
    if success > 2 / 3:
        return "bold green"
    return "bold red" if success < 1 / 3 else "bold yellow"


def main() -> None:
    """Parse the command line and show what it asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("--step", type=int, help="the step; by default the last one with trees")
    parser.add_argument("--task", help="id of the task whose tree to show")
    parser.add_argument("--full", action="store_true", help="whole texts, observations included")
    parser.add_argument("--svg", type=Path, help="draw the task's tree into this file instead")
    parser.add_argument(
        "--tokenizer", help="HF folder of the tokenizer; by default the run's start policy"
    )
    args = parser.parse_args()
    files = tree_files(args.run)
    step = max(files, default=None) if args.step is None else args.step
    if step not in files:
        raise SystemExit(
            f"{args.run} has no trees of step {step}; it has {', '.join(map(str, files)) or 'none'}"
        )
    trees, decode = load_trees(files[step]), decoder(args.run, args.tokenizer)
    if args.task is None:
        Console().print(table_of(trees, decode))
        return
    found = [tree for tree in trees if str(tree.task.get("id")) == args.task]
    if not found:
        raise SystemExit(
            f"step {step} has no tree of task {args.task!r}; leave --task out to list them"
        )
    # As the report draws it: a run that takes equal histories for one has fewer anchors.
    tree = by_histories(found[0]).tree if read_history(args.run).merges else found[0]
    if args.svg:
        write_text(args.svg, draw_tree(tree, decode))
    else:
        Console().print(terminal_tree(tree, decode, full=args.full))


if __name__ == "__main__":
    main()
