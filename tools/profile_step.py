"""Where the processor time of training steps goes.

    python tools/profile_step.py --config configs/geo_hop_cpu.yaml [section.name=value ...]

Takes a few steps as a run does, on a CPU: the fleet samples, the trainer learns, and the weights go
to the fleet. Clocks stand around the functions of each part, in the engines' processes too. A
clock shows processor seconds without those of the clocks inside it, in the mean over the steps
after the first.
"""

import argparse
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from megatron_trace.allocation import Allocator
from megatron_trace.check.load import load_config
from megatron_trace.check.tasks import read_tasks
from megatron_trace.config.sources import train_sources
from megatron_trace.data.mixture import WeightedTasks, mixed_stream
from megatron_trace.policy.policy import Policy
from megatron_trace.policy.ranks import RankGroup
from megatron_trace.rollout.actors import call, results
from megatron_trace.rollout.fleet import Fleet
from megatron_trace.rollout.sampling import sample_trees
from megatron_trace.rollout.vllm.engine import VLLMEngine
from megatron_trace.rollout.worker import Worker
from megatron_trace.simulate.simulation import NoProgress
from megatron_trace.training.trainer import Trainer

# Without it vLLM calls no function of ours in the engine's process.
os.environ["VLLM_ALLOW_INSECURE_SERIALIZATION"] = "1"
# As in a run.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

Seconds = dict[str, float]

ENGINE = {
    "matrix products": ["vllm._custom_ops:onednn_mm"],
    "attention": [
        "vllm._custom_ops:cpu_attention_with_kv_cache",
        "vllm._custom_ops:cpu_attn_reshape_and_cache",
    ],
    "norms": ["vllm.model_executor.layers.layernorm:RMSNorm.forward"],
    "rest of the model": ["vllm.v1.worker.gpu_model_runner:GPUModelRunner._model_forward"],
    "prediction": ["megatron_trace.rollout.vllm.model:WithPredictor.compute_logits"],
    "sampler": ["vllm.v1.worker.gpu_model_runner:GPUModelRunner._sample"],
    "inputs of a batch": ["vllm.v1.worker.gpu_model_runner:GPUModelRunner.execute_model"],
    "scheduler": [
        "vllm.v1.core.sched.scheduler:Scheduler.schedule",
        "vllm.v1.core.sched.scheduler:Scheduler.update_from_output",
    ],
}
"""Parts of an engine's step, and the functions of each."""

LEARNING = {
    "rows of the trees": ["megatron_trace.training.trainer:rows_from_trees"],
    "plan and batches": [
        "megatron_trace.policy.train_step:plan_step",
        "megatron_trace.policy.schedule:make_batches",
    ],
    "forward": ["megatron.core.pipeline_parallel.schedules:forward_step"],
    "backward": ["megatron.core.pipeline_parallel.schedules:backward_step"],
    "optimizer": ["megatron_trace.policy.optimizer:Optimizer.step"],
    "predictor": ["megatron_trace.policy.train_step:TrainStep._teach_predictor"],
    "rest": ["megatron_trace.training.trainer:Trainer.learn"],
}
"""Parts of learning."""


class Clocks:
    """Processor seconds of this process so far, by the part that ran."""

    def __init__(self, parts: Mapping[str, Sequence[str]]) -> None:
        """Put a clock around every function of `parts`: "module:name" or "module:Class.name"."""
        # vLLM runs this in its own process, which knows nothing of this file's imports.
        from importlib import import_module

        self.seconds = dict.fromkeys(parts, 0.0)
        self._inner = 0.0
        for part, places in parts.items():
            for place in places:
                module, _, path = place.partition(":")
                *owners, name = path.split(".")
                owner: Any = import_module(module)
                for attribute in owners:
                    owner = getattr(owner, attribute)
                setattr(owner, name, self._timed(part, getattr(owner, name)))

    def _timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            outer, self._inner = self._inner, 0.0
            begin = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                whole = time.process_time() - begin
                self.seconds[part] += whole - self._inner
                self._inner = outer + whole

        return timed


def start_clocks(worker: Any) -> None:
    """Put clocks around the parts of the engine; called in its process."""
    worker.clocks = Clocks(ENGINE)


def read_clocks(worker: Any) -> Seconds:
    """Seconds of the engine's process so far, by part."""
    seconds = worker.clocks.seconds
    return {**seconds, "rest of the engine": time.process_time() - sum(seconds.values())}


class ClockedWorker(Worker):
    """A worker whose engine has clocks."""

    async def start(self) -> dict[str, float]:
        """Start the engine, then its clocks."""
        startup = await super().start()
        await self._engine_call(start_clocks)
        return startup

    async def read(self) -> Seconds:
        """Seconds of engine and worker so far, by part."""
        (engine,) = await self._engine_call(read_clocks)
        return {**engine, "worker: messages, text, environment": time.process_time()}

    async def _engine_call(self, function: Callable[..., Any]) -> list[Any]:
        assert isinstance(self._engine, VLLMEngine)
        return await self._engine.llm.collective_rpc(function)


def sampling_seconds(fleet: Fleet) -> Counter[str]:
    """Seconds so far of all that samples, by part."""
    total = Counter({"this process: calls of the fleet": time.process_time()})
    for seconds in results(call(worker, ClockedWorker.read) for worker in fleet.workers):
        total.update(seconds)
    return total


@dataclass
class Step:
    """What a step cost: by part in processor seconds, and in all on the clock."""

    sampling: Counter[str]
    learning: Counter[str]
    sampling_s: float
    learning_s: float


def take_step(
    fleet: Fleet,
    trainer: Trainer,
    clocks: Clocks,
    allocator: Allocator,
    tasks: list[Any],
    step: int,
) -> Step:
    """Sample, learn, push the weights; `clocks` are those of learning."""
    before = sampling_seconds(fleet)
    trees, cost = sample_trees(fleet, allocator, tasks, f"step {step}", NoProgress())
    sampling = sampling_seconds(fleet)
    sampling.subtract(before)
    learned, begin = Counter(clocks.seconds), time.perf_counter()
    trainer.learn(trees)
    learning_s = time.perf_counter() - begin
    learning = Counter(clocks.seconds)
    learning.subtract(learned)
    trainer.push(fleet, version=step)
    return Step(sampling, learning, sum(cost.seconds.values()), learning_s)


def table(name: str, steps: Sequence[Counter[str]], clock: Sequence[float]) -> Table:
    """The parts of sampling or learning, the dearest first: means over the steps."""
    total = sum((Counter(step) for step in steps), Counter())
    whole = sum(total.values())
    wall = sum(clock) / len(steps)
    shown = Table(name, "processor s", "share", box=None, title_justify="left")
    for part, seconds in total.most_common():
        shown.add_row(part, f"{seconds / len(steps):.2f}", f"{seconds / whole:.0%}")
    shown.add_row(f"all, in {wall:.2f} s", f"{whole / len(steps):.2f}", "")
    return shown


def main() -> None:
    """Take steps and print where the time went."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, help="YAML file of a run on a CPU")
    parser.add_argument("--steps", type=int, default=4, help="the first is not counted")
    parser.add_argument("settings", nargs="*", help="section.name=value")
    args = parser.parse_args()
    config = load_config(args.config, args.settings)
    allocator = Allocator(config.allocation, config.run.seed)
    sources = [
        WeightedTasks(read_tasks(config, one).tasks, one.weight, one.name)
        for one in train_sources(config.data)
    ]
    stream = mixed_stream(sources, config.run.seed)
    fleet = Fleet(
        config, config.model.path, worker_class=ClockedWorker, requires=allocator.requires
    )
    try:
        trainer = Trainer(config, RankGroup(Policy(config)))
        clocks = Clocks(LEARNING)
        fleet.wait()
        trainer.push(fleet, version=0)
        steps = []
        for step in range(1, args.steps + 1):
            tasks = [next(stream) for _ in range(allocator.candidates())]
            steps.append(take_step(fleet, trainer, clocks, allocator, tasks, step))
    finally:
        fleet.close()
    console = Console(width=100)
    counted = steps[1:]
    for name, parts, clock in (
        ("sampling", [s.sampling for s in counted], [s.sampling_s for s in counted]),
        ("learning", [s.learning for s in counted], [s.learning_s for s in counted]),
    ):
        console.print(table(name, parts, clock))


if __name__ == "__main__":
    main()
