"""Tokens per second of tree rollouts against plain vLLM generation, side by side on one engine.

    python tools/bench_rollout.py --config configs/geo_hop_cpu.yaml [section.name=value ...]

Tree rollouts: bare rollouts and continuations through the fleet, with environments, predictions,
log-probabilities, seeds and snapshots. Plain generation: the prompt ids and the number of tokens of
every turn that the trees sampled, all submitted at once to the same engine, with nothing recorded.
The prefix cache is emptied before both.
"""

import argparse
import asyncio
import statistics
import time
from dataclasses import dataclass
from typing import Any

from megatron_trace.check.load import load_config
from megatron_trace.check.tasks import read_tasks
from megatron_trace.config import Config
from megatron_trace.config.sources import train_sources
from megatron_trace.rollout.actors import call, results
from megatron_trace.rollout.failures import Attempts
from megatron_trace.rollout.fleet import Fleet
from megatron_trace.rollout.types import RolloutRequest
from megatron_trace.rollout.vllm.engine import VLLMEngine
from megatron_trace.rollout.worker import Worker
from megatron_trace.tree import ROOT, Requires, RolloutTree


class BenchWorker(Worker):
    """A worker that also generates plainly."""

    async def empty_cache(self, version: int) -> None:
        """Drop all cached histories: a new policy version does so."""
        await self._engine.set_version(version)

    async def plain(self, turns: list[tuple[list[int], int]]) -> float:
        """Generate n tokens after each prompt; returns the seconds it took."""
        from vllm.inputs import TokensPrompt
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        async def generate(name: str, prompt_ids: list[int], tokens: int) -> None:
            # As many tokens as the trees sampled, whatever the policy would say: the work must be
            # the same.
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
    """One repetition.

    Attributes:
        tokens: sampled tokens, the same for both.
        tree_s, plain_s: seconds of tree rollouts and of plain generation.
        prompt_tokens, cached_tokens: the trees' prompt tokens in all, and those from the cache.
    """

    tokens: int
    tree_s: float
    plain_s: float
    prompt_tokens: int
    cached_tokens: int

    @property
    def ratio(self) -> float:
        """Speed of tree rollouts over that of plain generation."""
        return self.plain_s / self.tree_s

    def line(self, words: str) -> str:
        """The repetition in a line; `words` follow the number of tokens."""
        trees = self.tokens / self.tree_s
        plain = self.tokens / self.plain_s
        cached = self.cached_tokens / self.prompt_tokens
        return (
            f"{self.tokens} tokens{words}: trees {trees:.0f}/s, plain {plain:.0f}/s, "
            f"ratio {self.ratio:.2f}, {cached:.0%} of the prompt tokens cached"
        )


def grow(
    fleet: Fleet, trees: list[RolloutTree], wanted: list[tuple[int, int]], name: str, stage: Any
) -> list[Any]:
    """Sample and graft a rollout for every (tree, anchor)."""
    requests = []
    for number, (index, anchor) in enumerate(wanted):
        state = trees[index].turns[anchor].state
        assert state is not None
        history = trees[index].history_ids(anchor)
        request = f"{name}/{stage}/{number}"
        requests.append(RolloutRequest(request, history, state, tree=str(index)))
    rollouts = fleet.sample(requests)
    for (index, anchor), rollout in zip(wanted, rollouts, strict=True):
        trees[index].graft(anchor, rollout.turns)
    return rollouts


def measure(fleet: Fleet, tasks: list[Any], group: int, version: int) -> Measured:
    """Grow trees with `group` bare rollouts and as many continuations each, then generate the same
    plainly.
    """
    worker = fleet.workers[0]
    trees = Attempts().opened(fleet.open_trees(tasks))
    results([call(worker, BenchWorker.empty_cache, 2 * version)])
    begin = time.perf_counter()
    bare = [(index, ROOT) for index in range(len(trees)) for _ in range(group)]
    rollouts = grow(fleet, trees, bare, f"{version}", "bare")
    prefixes = [(index, anchor) for index, tree in enumerate(trees) for anchor in tree.prefixes()]
    rollouts += grow(fleet, trees, prefixes[: len(bare)], f"{version}", "continuation")
    tree_s = time.perf_counter() - begin
    turns = sampled_turns(trees)
    results([call(worker, BenchWorker.empty_cache, 2 * version + 1)])
    (plain_s,) = results([call(worker, BenchWorker.plain, turns)])
    return Measured(
        tokens=sum(tokens for _, tokens in turns),
        tree_s=tree_s,
        plain_s=plain_s,
        prompt_tokens=sum(rollout.prompt_tokens for rollout in rollouts),
        cached_tokens=sum(rollout.cached_tokens for rollout in rollouts),
    )


def sampled_turns(trees: list[RolloutTree]) -> list[tuple[list[int], int]]:
    """Prompt ids and the number of sampled tokens of every turn."""
    turns = []
    for tree in trees:
        for turn in tree.turns:
            if turn.action_ids:
                turns.append((tree.history_ids(turn.parent), len(turn.action_ids)))
    return turns


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, help="YAML file of a run")
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
    return parser.parse_args()


def start_fleets(config: Config, *, entropies: bool) -> list[Fleet]:
    """A fleet of one engine, and with `entropies` a second one that returns them; prints how long
    they took.
    """
    begin = time.perf_counter()
    wanted = [frozenset[Requires]()]
    if entropies:
        wanted.append(frozenset({Requires.entropies}))
    fleets = [
        Fleet(config, config.model.path, worker_class=BenchWorker, requires=requires)
        for requires in wanted
    ]
    for fleet in fleets:
        fleet.wait()
        phases = [f"{name} {seconds:.1f}" for name, seconds in fleet.startup[0].items()]
        total = time.perf_counter() - begin
        print(f"start-up: {total:.1f} s ({', '.join(phases)})")
    return fleets


def main() -> None:
    """Measure and print."""
    args = parse()
    config = load_config(args.config, args.settings)
    config.rollout.workers = 1
    fleets = start_fleets(config, entropies=args.entropies)
    sources = train_sources(config.data)
    tasks = [task for source in sources for task in read_tasks(config, source).tasks]
    rounds: list[list[Measured]] = []
    for version in range(args.repeats + 1):
        batch = tasks[version * args.tasks : (version + 1) * args.tasks]
        rounds.append([measure(fleet, batch, args.group, version + 1) for fleet in fleets])
        for found, words in zip(rounds[-1], ("", ", with entropies"), strict=False):
            print(found.line(words) + (" (warm-up)" if version == 0 else ""))
    # The first fleet has started Ray, so it is closed last.
    for fleet in reversed(fleets):
        fleet.close()
    counted = rounds[1:]
    print(f"median ratio {statistics.median(found[0].ratio for found in counted):.2f}")
    if args.entropies:
        slower = statistics.median(found[0].tree_s / found[1].tree_s for found in counted)
        print(f"median speed of trees with entropies over without {slower:.2f}")


if __name__ == "__main__":
    main()
