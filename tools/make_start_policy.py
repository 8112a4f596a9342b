"""Make GeoHop's start policy: a small Qwen3 that clones first a competent, then a noisy
demonstrator.

    python tools/make_start_policy.py --data data/geo_hop --out examples/geo_hop/start_policy --seed 0

The competent phase teaches the format and copying. The noisy phase teaches wrong decisions (never
wrong spelling), so that reinforcement learning has something to undo. `--competent DIR` keeps the
rounds of the first phase there; a later call starts from those that exist.

    python tools/make_start_policy.py --undo examples/geo_hop/start_policy --seed 0 \\
        --data data/geo_hop_wide --max-turns 14 --out examples/geo_hop/competent_policy

makes a competent policy for the wide tasks from the noisy one. The demonstrations have 1 to 6 hops,
so longer chains are for reinforcement learning.
"""

import argparse
import json
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from cloning import Episode, Size, batches, new_model, save, train
from cloning_tokenizer import encode, train_tokenizer, without_tags
from geo_hop_demonstrator import (
    MAX_TURNS,
    TAGS,
    VOCABULARY,
    WIDE_TURNS,
    Demonstrator,
    geo_hop_episodes,
    names_from_titles,
    names_from_tokens,
    rename,
)
from geo_hop_evaluation import evaluate
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from megatron_trace.data.tasks import Task, load_tasks
from megatron_trace.envs.builtin.search_qa import SearchQA
from megatron_trace.files.atomic import write_text

SIZE = Size(hidden=256, layers=4)
"""3.7 M parameters."""


@dataclass(frozen=True)
class Phase:
    """Which demonstrations a phase is shown.

    Attributes:
        tasks: shards of its tasks.
        hop_weights: share of tasks with 1, 2, … hops.
        max_turns: of an episode.
    """

    tasks: str
    hop_weights: Sequence[float]
    max_turns: int = MAX_TURNS


PHASES = {
    "competent": Phase("train-*.tar", (0.2, 0.35, 0.3, 0.15)),
    "noisy": Phase("train-*.tar", (0.2, 0.25, 0.3, 0.25)),
    "wide": Phase("broad-*.tar", (0.15, 0.2, 0.2, 0.2, 0.15, 0.1), WIDE_TURNS),
}


@dataclass(frozen=True)
class Round:
    """A series of steps with its own optimizer, warm-up and cosine.

    Attributes:
        steps: optimizer steps.
        peak: the learning rate after the warm-up.
        renamed: share of demonstrations with invented names in place of real ones, so that copying
            becomes general.
        pieces: what invented names are made of: `titles` (pieces of real names) or `tokens` (any
            tokens that a name can hold).
    """

    steps: int
    peak: float
    renamed: float
    pieces: str


# A policy of this size learns to copy names that look like real ones first. Afterwards it needs all
# tokens as targets: a token that was never a target in training is never said of a held-out name.
COMPETENT_ROUNDS = (
    Round(1_600, 1.5e-3, renamed=0.5, pieces="titles"),
    Round(1_600, 1.5e-3, renamed=0.5, pieces="titles"),
    Round(1_400, 1.2e-3, renamed=0.9, pieces="tokens"),
)
NOISY_ROUND = Round(150, 2e-4, renamed=0.7, pieces="tokens")
WIDE_POSITIONS = 1_536
"""Tokens of the longest history on the wide tasks, and some more."""

UNDOING_ROUNDS = (
    Round(800, 5e-4, renamed=0.7, pieces="tokens"),
    Round(1_200, 5e-4, renamed=0.7, pieces="tokens"),
)


@dataclass
class Demonstrations:
    """What demonstrations are drawn from.

    Attributes:
        phase: which tasks are drawn.
        make: makes an episode of the environment.
        world: title -> relation -> value of the documents that may be used in training.
        tasks: the training tasks.
    """

    phase: Phase
    make: Callable[[], SearchQA]
    world: dict[str, dict[str, str]]
    tasks: list[Task]
    by_hops: list[list[Task]] = field(init=False)

    def __post_init__(self) -> None:
        """Group the tasks by their hops, as many kinds as the phase has weights."""
        self.by_hops = []
        for hops, _ in enumerate(self.phase.hop_weights, 1):
            self.by_hops.append([task for task in self.tasks if task["hops"] == hops])

    @classmethod
    def read(cls, folder: Path, phase: Phase) -> "Demonstrations":
        """Read the shards of build_geo_hop.py."""
        documents = load_tasks(str(folder / "corpus-*.tar"))
        world = {}
        for document in documents:
            if not document["heldout"]:
                world[document["title"]] = document["fields"]
        tasks = load_tasks(str(folder / phase.tasks))
        make = geo_hop_episodes(folder, phase.max_turns)
        return cls(phase, make, world, tasks)

    def demonstrator(self, noise: float) -> Demonstrator:
        """Plays the tasks with the error rate `noise` per turn."""
        return Demonstrator(self.make, self.world, noise, self.phase.max_turns)

    def episodes(
        self,
        tokenizer: PreTrainedTokenizerFast,
        noise: float,
        plan: Round,
        rng: random.Random,
    ) -> Callable[[], Episode]:
        """A function that draws one tokenized demonstration.

        Args:
            noise: the demonstrator's error rate per turn.
            rng: every draw takes its random numbers from here.
        """
        demonstrator = self.demonstrator(noise)
        if plan.pieces == "titles":
            invent = names_from_titles(list(self.world))
        else:
            invent = names_from_tokens(list(tokenizer.get_vocab()))

        def draw() -> Episode:
            # The hops first: the training tasks are not distributed as the phase wants them.
            (tasks,) = rng.choices(self.by_hops, self.phase.hop_weights)
            task = rng.choice(tasks)
            segments = demonstrator.play(task, rng)
            if rng.random() < plan.renamed:
                segments = rename(segments, self.world, rng, invent)
            return encode(tokenizer, segments)

        return draw


def make_policy(args: argparse.Namespace) -> None:
    """Train both phases; with `args.undo` only the round that makes a noisy policy competent.
    Rounds of the first phase that are in `args.competent` are not trained again.
    """

    def clone(name: str, phase: str, noise: float, plan: Round) -> None:
        rng = random.Random(f"{args.seed}/{name}")
        shown = Demonstrations.read(args.data, PHASES[phase])
        draw = shown.episodes(tokenizer, noise, plan, rng)
        train(model, batches(draw, args.tokens_per_batch, rng), plan.steps, plan.peak, name)

    if args.undo:
        for number, plan in enumerate(UNDOING_ROUNDS, 1):
            folder = args.undo if number == 1 else args.out
            tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
            model = Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float32)
            # Nothing but a limit that vLLM checks: the rotary embedding has no table.
            model.config.max_position_embeddings = WIDE_POSITIONS
            clone("undo" if number == 1 else f"undo/{number}", "wide", 0.0, plan)
            save(model, tokenizer, args.out)
        return
    for number, plan in enumerate(COMPETENT_ROUNDS, 1):
        folder = args.competent / f"round_{number}"
        if not (folder / "config.json").exists():
            if number == 1:
                shown = Demonstrations.read(args.data, PHASES["competent"])
                demonstrator = shown.demonstrator(noise=0.0)
                rng = random.Random(f"{args.seed}/tokenizer")
                played = (demonstrator.play(task, rng) for task in shown.tasks)
                tokenizer = train_tokenizer(without_tags(played, TAGS), TAGS, VOCABULARY)
                model = new_model(tokenizer, SIZE, args.seed)
            clone("competent" if number == 1 else f"competent/{number}", "competent", 0.0, plan)
            save(model, tokenizer, folder)
        # Every round starts from the saved float16 weights, whether it was trained now or before.
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        model = Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float32)
    clone("noisy", "noisy", args.noise, NOISY_ROUND)
    save(model, tokenizer, args.out)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, default=Path("data/geo_hop"), help="folder of build_geo_hop.py"
    )
    parser.add_argument("--out", type=Path, default=Path("examples/geo_hop/start_policy"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--competent",
        type=Path,
        default=Path("runs/geo_hop_competent"),
        help="where the first phase's rounds are kept",
    )
    parser.add_argument(
        "--noise", type=float, default=0.33, help="error rate per turn in the noisy phase"
    )
    parser.add_argument(
        "--undo",
        type=Path,
        help="a noisy policy that learns to be competent again, instead of a new one",
    )
    parser.add_argument(
        "--max-turns", type=int, default=MAX_TURNS, help="of an episode that is measured"
    )
    parser.add_argument("--tokens-per-batch", type=int, default=2_048)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--report", type=Path, help="where to write the measured success as JSON")
    parser.add_argument("--evaluate", type=Path, help="only measure the policy in this folder")
    args = parser.parse_args()
    # A folder of the same purpose is replaced; another one is not ours to remove.
    is_model = (args.out / "config.json").exists()
    if args.evaluate is None and os.path.lexists(args.out) and not is_model:
        parser.error(f"--out {args.out} exists and holds no model; it is not replaced")
    if args.undo and not (args.undo / "config.json").exists():
        parser.error(f"--undo {args.undo}: no folder of a model, which has a config.json")
    return args


def main() -> None:
    """Clone the competent demonstrator, then the noisy one; measure."""
    args = parse()
    torch.set_num_threads(args.threads)
    if args.evaluate is None:
        make_policy(args)
    policy = args.evaluate or args.out
    report = evaluate(policy, args.data, args.seed, args.max_turns)
    print(json.dumps(report, indent=2))
    if args.report:
        write_text(args.report, json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
