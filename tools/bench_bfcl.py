"""Time the environment function_calling: episodes of BFCL's ground truth, one call in a reply.

    python tools/bench_bfcl.py
    python tools/bench_bfcl.py --threads 32

It needs the package bfcl-eval and no model. Of every multi-turn category it prints the episodes
played, the share with reward 1, and milliseconds: of an episode with its judgement (mean and
longest), and of the first call after a restore at the last reply, which makes all calls again.
"""

import argparse
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from megatron_trace.config import EnvironmentConfig
from megatron_trace.envs import make_environments
from megatron_trace.envs.bfcl.tasks import MULTI_TURN, read_category
from megatron_trace.envs.bfcl.truth import truth_replies
from megatron_trace.models.messages import Reply, ToolCall

MAX_TURNS = 60
"""Enough for every task's ground truth."""


@dataclass(frozen=True)
class Timed:
    """One episode: its reward, and seconds."""

    reward: float
    episode_s: float
    restore_s: float


def play(make: Any, task: Mapping[str, Any]) -> Timed:
    """Play the ground truth, and restore before the last reply."""
    replies = truth_replies(task)
    began = time.perf_counter()
    episode = make()
    episode.reset(task)
    for reply in replies[:-1]:
        result = episode.step(reply)
        if result.done:
            break
    snapshot = episode.snapshot()
    if not result.done:
        result = episode.step(replies[-1])
    episode_s = time.perf_counter() - began
    began = time.perf_counter()
    fork = make()
    fork.restore(snapshot)
    fork.step(Reply("", calls=(ToolCall("ls", {}, "call_0"),)))
    return Timed(result.reward, episode_s, time.perf_counter() - began)


def main() -> None:
    """Play all tasks and print a line for every category."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1, help="episodes at the same time")
    threads = parser.parse_args().threads
    make = make_environments(EnvironmentConfig("function_calling", MAX_TURNS))
    for category in MULTI_TURN:
        tasks = read_category(category)
        began = time.perf_counter()
        with ThreadPoolExecutor(threads) as pool:
            timed = list(pool.map(lambda task: play(make, task), tasks))
        wall_s = time.perf_counter() - began
        episodes = [one.episode_s * 1e3 for one in timed]
        restores = [one.restore_s * 1e3 for one in timed]
        print(
            f"{category:24} {len(timed)} episodes, {sum(one.reward for one in timed):g} right, "
            f"mean {sum(episodes) / len(timed):.1f} ms, longest {max(episodes):.0f} ms, "
            f"restore {sum(restores) / len(timed):.1f} ms, all in {wall_s:.1f} s"
        )


if __name__ == "__main__":
    main()
