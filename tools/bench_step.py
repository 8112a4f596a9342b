"""A whole GRPO step, sampling and learning, beside TRL's `GRPOTrainer` on the same cores.

    python tools/bench_step.py --trl-python /tmp/trl/bin/python

TRL is no part of the run's environment. A second one sees the run's packages and adds TRL's:

    python -m venv /tmp/trl
    echo $PWD/.venv/lib/python3.11/site-packages > /tmp/trl/lib/python3.11/site-packages/run.pth
    /tmp/trl/bin/pip install --no-deps trl==1.16.0 accelerate==1.15.0 datasets==5.2.0 \\
        pandas==3.1.1 pyarrow==26.0.1 multiprocess==0.70.19 xxhash==4.1.0

Each side runs in its own process, and they take steps in turn. Both have the same model, questions,
number of rollouts for each, and sampled tokens of each rollout: one turn that no token ends. Both
work in float32 with one optimizer update a step, equal learning rate and clip bounds, and no KL. A
rollout succeeds if its text has an even number of characters. That teaches nothing, but gives
nearly every question rollouts of both kinds. `--documents` lengthens the prompts: documents of the
corpus come before the question.

Ours is the step of `training/loop.py`: the fleet's vLLM engine samples, Megatron-Core learns, and
the new weights go to the engine. It also trains the predictor. TRL samples with `transformers` (its
default) and learns in micro-batches of `--trl-batch` rollouts. Its gradient checkpointing is off:
it would cost time and save memory that is not needed here.

sampling: for TRL with rewards and advantages; for us with the opening of the trees.
learning: for TRL with the optimizer.
entropy: mean over all sampled tokens, in nats, under the policy that learns. Where it, and the mean
    reward, agree between the sides, both sampled from the same policy with the same prompts.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bench_sides import Side, ratios, running, spread, take_turns
from bench_step_work import Work
from rich.console import Console
from rich.table import Table

from megatron_trace.data.tasks import load_tasks

TASKS, CORPUS = "data/geo_hop/train-*.tar", "data/geo_hop/corpus-*.tar"
CHECKS = ("sampled_tokens", "prompt_tokens", "entropy", "reward", "gradient_norm")


def measure(work: Work, trl_python: Path, repeats: int, threads: int) -> dict[str, Side]:
    """`repeats` counted steps of both sides, after the warm-up steps of `work`."""
    folder = Path(__file__).parent
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "work.json"
        file.write_text(json.dumps(asdict(work)))
        commands: dict[str, Sequence[str | Path]] = {
            "trace": [sys.executable, "-W", "ignore", folder / "bench_step_trace.py", file],
            "trl": [trl_python, "-W", "ignore", folder / "bench_step_trl.py", file],
        }
        with running(commands, threads) as sides:
            take_turns(sides, warm_up=work.steps - repeats, repeats=repeats)
    return sides


def times_table(sides: dict[str, Side]) -> Table:
    """Seconds of each side, and ours over TRL's."""
    table = Table("", "step", "sampling", "learning", "weights", "processor", box=None)
    columns = ("seconds", "sampling", "learning", "weights", "processor")
    for name, side in sides.items():
        cells = [spread(side.values(column)) for column in columns]
        table.add_row(f"{name}, s", *cells)
    ours, trl = sides["trace"], sides["trl"]
    cells = []
    for column in columns:
        cells.append("" if column == "weights" else spread(ratios(ours, trl, column)))
    table.add_row("trace / trl", *cells)
    return table


def checks_table(sides: dict[str, Side]) -> Table:
    """What says that both sides did the same work: means over the counted steps."""
    table = Table("", *(name.replace("_", " ") for name in CHECKS), box=None)
    for name, side in sides.items():
        means = [sum(side.values(check)) / len(side.steps) for check in CHECKS]
        table.add_row(name, *(f"{mean:,.4g}" for mean in means))
    return table


def make_questions(count: int, documents: int) -> list[str]:
    """`count` questions, each after some documents."""
    tasks = load_tasks(TASKS)
    corpus = [f"{document['title']} : {document['text']}" for document in load_tasks(CORPUS)]
    questions = []
    # The tasks are sorted by hops: take some of all kinds.
    for number, task in enumerate(tasks[:: len(tasks) // count][:count]):
        first = number * documents % (len(corpus) - documents)
        questions.append("\n".join([*corpus[first : first + documents], task["question"]]))
    return questions


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trl-python", type=Path, required=True, help="Python that has TRL")
    parser.add_argument("--model", default="examples/geo_hop/start_policy", help="HF folder")
    parser.add_argument("--questions", type=int, default=16, help="questions of a step")
    parser.add_argument("--documents", type=int, default=0, help="documents before each question")
    parser.add_argument("--group", type=int, default=8, help="rollouts of each question")
    parser.add_argument("--tokens", type=int, default=64, help="sampled tokens of each rollout")
    parser.add_argument("--trl-batch", type=int, default=32, help="rollouts of a micro-batch")
    parser.add_argument("--warm-up", type=int, default=2, help="steps that are not counted")
    parser.add_argument("--repeats", type=int, default=5, help="counted steps of each side")
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count() or 1, help="threads of a side, on a CPU"
    )
    args = parser.parse_args()
    if not args.trl_python.exists():
        parser.error(f"--trl-python: there is no {args.trl_python}")
    if args.questions * args.group % args.trl_batch:
        rollouts = args.questions * args.group
        parser.error(f"--trl-batch {args.trl_batch} must divide the {rollouts} rollouts of a step")
    return args


def main() -> None:
    """Measure both sides; print the tables."""
    args = parse()
    steps = args.warm_up + args.repeats
    work = Work(
        model=args.model,
        questions=make_questions(steps * args.questions, args.documents),
        steps=steps,
        group=args.group,
        tokens=args.tokens,
        trl_batch=args.trl_batch,
    )
    sides = measure(work, args.trl_python, args.repeats, args.threads)
    console = Console(width=160)
    console.print(
        f"{args.questions} questions after {args.documents} documents, {args.group} rollouts of each, "
        f"{args.tokens} tokens a rollout"
    )
    console.print(times_table(sides))
    console.print(checks_table(sides))


if __name__ == "__main__":
    main()
