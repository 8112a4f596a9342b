"""This project's side of tools/bench_step.py: python tools/bench_step_trace.py WORK.json"""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench_sides import Report, serve
from bench_step_work import CLIP_HIGH, CLIP_LOW, LEARNING_RATE, Work, prompt, read_work, reward

from megatron_trace.allocation import Allocator
from megatron_trace.check.load import load_config
from megatron_trace.config import Config
from megatron_trace.envs import Environment, StepResult
from megatron_trace.policy.policy import Policy
from megatron_trace.policy.ranks import RankGroup
from megatron_trace.rollout.engine import Generation
from megatron_trace.rollout.fleet import Fleet
from megatron_trace.rollout.sampling import sample_trees
from megatron_trace.rollout.vllm.engine import VLLMEngine
from megatron_trace.rollout.worker import Worker
from megatron_trace.simulate.simulation import NoProgress
from megatron_trace.training.trainer import Trainer

CONFIG = "configs/geo_hop_cpu.yaml"


class OneTurn(Environment):
    """Asks a question and rewards the one turn that answers it."""

    stop = ()

    def reset(self, task: Mapping[str, Any]) -> list[dict[str, str]]:
        """The task's question."""
        return prompt(task["question"])

    def step(self, action: str) -> StepResult:
        """End the episode."""
        return StepResult(observation="", done=True, reward=reward(action), malformed=False)

    def snapshot(self) -> dict[str, Any]:
        """Nothing: the reward depends on the action alone."""
        return {}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Nothing to restore."""


class FixedLengthEngine(VLLMEngine):
    """Samples as many tokens as a turn may have, whatever they are."""

    async def generate(self, prompt_ids: list[int], *, max_tokens: int, seed: int) -> Generation:
        """Sample `max_tokens` tokens after `prompt_ids`; they count as a whole turn."""
        generation = await super().generate(prompt_ids, max_tokens=max_tokens, seed=seed)
        return replace(generation, truncated=False)

    def _sampling_params(self, max_tokens: int, seed: int) -> Any:
        params = super()._sampling_params(max_tokens, seed)
        params.ignore_eos = True
        return params


class FixedLengthWorker(Worker):
    """A worker whose rollouts all have the same number of sampled tokens."""

    async def start(self) -> dict[str, float]:
        """Start with the other engine."""
        self._start_engine = FixedLengthEngine.start
        return await super().start()


def environments() -> Callable[[], Environment]:
    """The maker of episodes."""
    return OneTurn.maker(None, max_turns=1)


def settings(work: Work) -> Config:
    """The quickstart's settings, but GRPO as TRL's side has it."""
    model = json.loads((Path(work.model) / "config.json").read_text())
    changed = {
        "model.path": work.model,
        "allocation.strategy": "uniform",
        "allocation.budget": work.rollouts,
        "allocation.group": work.group,
        "allocation.pool": work.rollouts // work.group,
        "rollout.max_turn_tokens": work.tokens,
        "rollout.max_history_tokens": model["max_position_embeddings"],
        "rollout.concurrency": work.rollouts,
        "learning.advantage.name": "grpo",
        "learning.optimizer.learning_rate": LEARNING_RATE,
        "learning.loss.clip_low": CLIP_LOW,
        "learning.loss.clip_high": CLIP_HIGH,
    }
    return load_config(CONFIG, [f"{name}={value}" for name, value in changed.items()])


class Steps:
    """Takes the steps of `work`, each on its own questions."""

    def __init__(self, work: Work, fleet: Fleet, trainer: Trainer, allocator: Allocator) -> None:
        """All must be ready."""
        self._work, self._fleet, self._trainer = work, fleet, trainer
        self._allocator = allocator
        self._taken = 0

    def take(self) -> Report:
        """As `training/loop.py` does: sample, learn, push the weights."""
        work, count = self._work, self._work.rollouts // self._work.group
        first = self._taken * count
        questions = work.questions[first : first + count]
        tasks = [{"id": str(n), "question": question} for n, question in enumerate(questions)]
        self._taken += 1
        name, progress = f"step {self._taken}", NoProgress()
        trees, cost = sample_trees(self._fleet, self._allocator, tasks, name, progress)
        sampling = sum(cost.seconds.values())
        with cost.phase("learning", progress):
            metrics = self._trainer.learn(trees)
        with cost.phase("weights", progress):
            self._trainer.push(self._fleet, version=self._taken)
        leaves = [turn for tree in trees for turn in tree.turns if turn.terminal]
        prompts = [len(tree.turns[0].observation_ids) for tree in trees]
        return {
            "sampling": sampling,
            "learning": cost.seconds["learning"],
            "weights": cost.seconds["weights"],
            "sampled_tokens": sum(len(leaf.action_ids) for leaf in leaves),
            "prompt_tokens": work.group * sum(prompts),
            "reward": sum(leaf.reward for leaf in leaves) / len(leaves),
            "entropy": metrics["entropy"],
            "gradient_norm": metrics["gradient_norm"],
        }


def main() -> None:
    """Start fleet and trainer, then take a step for each turn."""
    work = read_work(sys.argv[1])
    config = settings(work)
    fleet = Fleet(config, work.model, environments, FixedLengthWorker)
    try:
        trainer = Trainer(config, RankGroup(Policy(config)))
        fleet.wait()
        steps = Steps(work, fleet, trainer, Allocator(config.allocation, config.run.seed))
        serve({"step": steps.take})
    finally:
        fleet.close()


if __name__ == "__main__":
    main()
