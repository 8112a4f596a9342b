"""How fast environments are: steps a second, and milliseconds of a step, with many episodes at once.

    python tools/bench_environments.py search_qa=data/geo_hop/train-*.tar \\
        --option search_qa.corpus=data/geo_hop/corpus-*.tar
    python tools/bench_environments.py examples/environment/shop.py=examples/environment/tasks.jsonl

Threads play random episodes for some seconds, each from its reset to its end, with a snapshot and a
restore into a new episode at every turn, as a worker does. No engine takes part. What share of a
rollout's time the environment takes in a run is `environment_share` in its metrics.jsonl.
"""

import argparse
import random
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table

from megatron_trace.config import EnvironmentConfig
from megatron_trace.envs import Reply, make_environments
from megatron_trace.envs.awaiting import settled
from megatron_trace.envs.contract import Make
from megatron_trace.envs.random_actions import random_action
from megatron_trace.files.rows import load_rows


@dataclass
class Times:
    """Seconds of each reset and of each step, of all threads."""

    resets: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)


def play(make: Make, task: Mapping[str, Any], rng: random.Random, times: Times) -> None:
    """One random episode."""
    began = time.perf_counter()
    episode = make()
    settled(episode.reset(task))
    snapshot = episode.snapshot()
    times.resets.append(time.perf_counter() - began)
    done = False
    while not done:
        action: Any = Reply("x")
        if not episode.chat or (episode.tools and rng.random() < 0.8):
            action = random_action(episode, task, rng)
        began = time.perf_counter()
        episode = make()
        episode.restore(snapshot)
        done = settled(episode.step(action)).done
        if not done:
            snapshot = episode.snapshot()
        times.steps.append(time.perf_counter() - began)


def measure(
    make: Make, tasks: Sequence[Mapping[str, Any]], threads: int, seconds: float
) -> tuple[Times, float]:
    """Play in `threads` for `seconds`; returns the times, and the seconds that it took."""
    # What is imported at the first use is not measured.
    play(make, tasks[0], random.Random(0), Times())
    times = Times()
    began = time.perf_counter()

    def run(number: int) -> None:
        rng = random.Random(number)
        while time.perf_counter() - began < seconds:
            play(make, rng.choice(tasks), rng, times)

    players = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for player in players:
        player.start()
    for player in players:
        player.join()
    return times, time.perf_counter() - began


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("environments", nargs="+", metavar="ENVIRONMENT=TASKS")
    parser.add_argument("--option", action="append", default=[], metavar="NAME.OPTION=VALUE")
    parser.add_argument("--threads", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--max-turns", type=int, default=6)
    args = parser.parse_args()
    options: Any = OmegaConf.to_container(OmegaConf.from_dotlist(args.option))
    table = Table("environment", "steps/s", "step: median ms", "p99 ms", "reset: median ms")
    for one in args.environments:
        name, _, tasks = one.partition("=")
        make = make_environments(EnvironmentConfig(name, args.max_turns, options))
        rows = [row.content for row in load_rows(tasks)]
        times, took = measure(make, rows, args.threads, args.seconds)
        steps = 1e3 * np.array(times.steps)
        table.add_row(
            name,
            f"{len(steps) / took:,.0f}",
            f"{np.median(steps):.2f}",
            f"{np.percentile(steps, 99):.2f}",
            f"{1e3 * np.median(times.resets):.2f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
