"""Tokens per second of tree rollouts against plain vLLM generation, side by side on one engine.

    python tools/bench_rollout.py --config configs/geo_hop_cpu.yaml [section.name=value ...]

Tree rollouts: bare rollouts and continuations through the fleet, with environments, predictions, log-probabilities,
seeds and snapshots. Plain generation: for every turn that they sampled the same prompt ids and as many tokens, all
submitted at once to the same engine, with nothing recorded. The prefix cache is emptied before each.
"""

import argparse
import asyncio
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from megatron_trace.config import Config
from megatron_trace.data.tasks import load_tasks
from megatron_trace.rollout.actors import call, results
from megatron_trace.rollout.fleet import Fleet
from megatron_trace.rollout.types import RolloutRequest
from megatron_trace.rollout.vllm.engine import VLLMEngine
from megatron_trace.rollout.worker import Worker
from megatron_trace.tree import ROOT, Requires, RolloutTree


class BenchWorker(Worker):
    """A worker that also generates plainly."""

    async def empty_cache(self, version: int) -> None:
        """Drop all cached histories, by the way of a new policy version."""
        await self._engine.set_version(version)

    async def plain(self, turns: list[tuple[list[int], int]]) -> float:
        """Generate n tokens after each prompt; returns the seconds it took."""
        from vllm.inputs import TokensPrompt
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        async def generate(name: str, prompt_ids: list[int], tokens: int) -> None:
            params = SamplingParams(
                temperature=1.0,
                max_tokens=tokens,
                min_tokens=tokens,
                ignore_eos=True,
                detokenize=False,
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
            prompt = TokensPrompt(prompt_token_ids=prompt_ids)
            async for _ in llm.generate(prompt, params, name):
                pass

        assert isinstance(self._engine, VLLMEngine)
        llm = self._engine.llm
        begin = time.perf_counter()
        await asyncio.gather(
            *(generate(f"plain {i}", ids, tokens) for i, (ids, tokens) in enumerate(turns))
        )
        return time.perf_counter() - begin


@dataclass
class Measured:
    """One repetition: sampled tokens, seconds of either way, and prompt tokens in all and from the cache."""

    tokens: int
    tree_s: float
    plain_s: float
    prompt_tokens: int
    cached_tokens: int

    @property
    def ratio(self) -> float:
        """Speed of tree rollouts over that of plain generation."""
        return self.plain_s / self.tree_s


def grow(
    fleet: Fleet, trees: list[RolloutTree], wanted: list[tuple[int, int]], name: str, stage: Any
) -> list[Any]:
    """Sample and graft a rollout for every (tree, anchor)."""
    requests = []
    for number, (index, anchor) in enumerate(wanted):
        state = trees[index].turns[anchor].state
        assert state is not None
        history = trees[index].history_ids(anchor)
        requests.append(RolloutRequest(f"{name}/{stage}/{number}", history, state, tree=str(index)))
    rollouts = fleet.sample(requests)
    for (index, anchor), rollout in zip(wanted, rollouts, strict=True):
        trees[index].graft(anchor, rollout.turns)
    return rollouts


def measure(fleet: Fleet, tasks: list[Any], group: int, version: int) -> Measured:
    """Grow trees with `group` bare rollouts and as many continuations each, then generate the same plainly."""
    worker = fleet.workers[0]
    trees = fleet.open_trees(tasks)
    results([call(worker, BenchWorker.empty_cache, 2 * version)])
    begin = time.perf_counter()
    bare = [(index, ROOT) for index in range(len(trees)) for _ in range(group)]
    rollouts = grow(fleet, trees, bare, f"{version}", "bare")
    prefixes = [(index, anchor) for index, tree in enumerate(trees) for anchor in tree.prefixes()]
    rollouts += grow(fleet, trees, prefixes[: len(bare)], f"{version}", "continuation")
    tree_s = time.perf_counter() - begin
    turns = [
        (tree.history_ids(turn.parent), len(turn.action_ids))
        for tree in trees
        for turn in tree.turns
        if turn.action_ids
    ]
    results([call(worker, BenchWorker.empty_cache, 2 * version + 1)])
    (plain_s,) = results([call(worker, BenchWorker.plain, turns)])
    return Measured(
        tokens=sum(tokens for _, tokens in turns),
        tree_s=tree_s,
        plain_s=plain_s,
        prompt_tokens=sum(rollout.prompt_tokens for rollout in rollouts),
        cached_tokens=sum(rollout.cached_tokens for rollout in rollouts),
    )


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, required=True, help="YAML file of a run")
    parser.add_argument("--tasks", type=int, default=24, help="trees")
    parser.add_argument(
        "--group",
        type=int,
        default=4,
        help="bare rollouts of a tree, and at most as many continuations",
    )
    parser.add_argument(
        "--repeats", type=int, default=5, help="repetitions, after one that is not counted"
    )
    parser.add_argument(
        "--entropies",
        action="store_true",
        help="the same with entropies, on a second engine, in turns",
    )
    parser.add_argument("settings", nargs="*", help="section.name=value")
    arguments = parser.parse_args()
    merged = OmegaConf.merge(
        OmegaConf.structured(Config),
        OmegaConf.load(arguments.config),
        OmegaConf.from_dotlist(arguments.settings),
    )
    config: Any = OmegaConf.to_object(merged)
    config.rollout.workers = 1
    begin = time.perf_counter()
    wanted = [frozenset[Requires](), frozenset({Requires.entropies})][: 1 + arguments.entropies]
    fleets = [
        Fleet(config, config.model.path, worker_class=BenchWorker, requires=requires)
        for requires in wanted
    ]
    for fleet in fleets:
        fleet.wait()
        phases = ", ".join(f"{name} {seconds:.1f}" for name, seconds in fleet.startup[0].items())
        print(f"start-up: {time.perf_counter() - begin:.1f} s ({phases})")
    tasks = load_tasks(config.data.train)
    rounds = []
    for version in range(arguments.repeats + 1):
        batch = tasks[version * arguments.tasks : (version + 1) * arguments.tasks]
        rounds.append([measure(fleet, batch, arguments.group, version + 1) for fleet in fleets])
        for run, words in zip(rounds[-1], ("", ", with entropies"), strict=False):
            share = run.cached_tokens / run.prompt_tokens
            print(
                f"{run.tokens} tokens{words}: trees {run.tokens / run.tree_s:.0f}/s, "
                f"plain {run.tokens / run.plain_s:.0f}/s, ratio {run.ratio:.2f}, "
                f"{share:.0%} of the prompt tokens cached" + (" (warm-up)" if not version else "")
            )
    for fleet in reversed(fleets):  # the first has started Ray
        fleet.close()
    print(f"median ratio {statistics.median(runs[0].ratio for runs in rounds[1:]):.2f}")
    if arguments.entropies:
        slower = statistics.median(runs[0].tree_s / runs[1].tree_s for runs in rounds[1:])
        print(f"median speed of trees with entropies over without {slower:.2f}")


if __name__ == "__main__":
    main()
