"""`pretrain_trace.py --dry-run`: every check of a run, and whether its memory fits, with nothing
started.
"""

import math
import os
from dataclasses import replace
from typing import Any

import psutil

from megatron_trace.check.command import (
    NEEDED_FOR_TASKS,
    check_settings,
    problems_here,
    read_model_config,
)
from megatron_trace.check.tasks import check_data
from megatron_trace.config import Config, Precision, WeightBackend
from megatron_trace.plan.assumptions import Assumptions
from megatron_trace.plan.layout import engine_places, smallest_world
from megatron_trace.plan.machines import GPUS, Cluster, Gpu, cpu_share
from megatron_trace.plan.notation import gib
from megatron_trace.plan.planner import Plan, make_plan
from megatron_trace.plan.tables import headline, host_line, train_table
from megatron_trace.report.words import console

GPUS_PER_NODE = 8
"""GPUs of a node, where torchrun does not say."""

MAX_TRAIN_NODES = 64
"""Most nodes of train ranks that are tried where torchrun does not say."""


def dry_run(config: Config) -> int:
    """Check `config` for the train ranks that torchrun started, or for the smallest cluster on
    which it fits.

    Problems that only the run's own machine can decide (CUDA, missing data and weights) are
    printed; they are no failure.

    Returns:
        the exit code: 0, or 2 where the memory does not suffice.

    Raises:
        SettingError: a setting cannot work on any machine, or the tasks that are here cannot be
            played.
    """
    started = os.environ.get("WORLD_SIZE")
    check_settings(config, world_size=int(started) if started else smallest_world(config))
    # Every rank checks, so that all of them end with the same error; rank 0 alone prints a plan.
    if os.environ.get("RANK", "0") != "0":
        return 0
    hf, gpu, out = read_model_config(config.model.path), gpu_of(config), console()
    problems = problems_here(config)
    for problem in problems.values():
        out.print(
            f"not so on this machine: {problem}", highlight=False, soft_wrap=True, markup=False
        )
    if started:
        world = int(started)
    else:
        world = fewest_ranks(config, hf, gpu)
        out.print(f"not started by torchrun: planned for {world} train ranks")
    plan = plan_for(config, hf, gpu, world)
    out.print(headline(plan))
    out.print(train_table(plan))
    cache = f"{gib(plan.engine.cache)} GiB keys and values"
    out.print(f"a rollout GPU: {gib(plan.engine.weights)} GiB weights, {cache}")
    out.print(host_line(plan))
    host = psutil.virtual_memory().total
    if started and plan.checkpoint_host > host:
        out.print(
            f"not so on this machine: it has {gib(host)} GiB, so it cannot save; "
            "use more train nodes with parallel.pipeline"
        )
    if not plan.fits:
        out.print("see tools/plan_cluster.py --search for layouts that fit")
    if not problems.keys() & NEEDED_FOR_TASKS:
        for line in check_data(config):
            out.print(line, highlight=False, soft_wrap=True, markup=False)
    return 0 if plan.fits else 2


def plan_for(
    config: Config, hf: dict[str, Any], gpu: Gpu, world: int, *, exact: bool = True
) -> Plan:
    """The plan of `world` train ranks, with as many nodes as they and the fleet need."""
    gpus, size = world + _fleet(config), config.rollout.tensor_parallel
    each = gpus_of_node()
    if gpu.name == "cpu":
        gpu, each = cpu_share(gpus), gpus
    cluster = Cluster(-(-gpus // each), each, gpu)
    # An engine stands within one node, so GPUs may be left over and more nodes be needed.
    while size <= each and engine_places(size, cluster, world) < config.rollout.workers:
        cluster = replace(cluster, nodes=cluster.nodes + 1)
    return make_plan(config, hf, cluster, Assumptions(), exact=exact, world=world)


def fewest_ranks(config: Config, hf: dict[str, Any], gpu: Gpu) -> int:
    """Train ranks of the smallest cluster that holds the layout; where none does, the fewest that
    the layout allows.

    The GPUs that the fleet leaves of one node are tried first, then whole nodes beside the fleet's.
    """
    smallest = smallest_world(config)
    unit = math.lcm(smallest, 1 if gpu.name == "cpu" else GPUS_PER_NODE)
    worlds = list(range(unit, MAX_TRAIN_NODES * GPUS_PER_NODE + 1, unit))
    left = (GPUS_PER_NODE - _fleet(config)) // smallest * smallest
    if left > 0 and gpu.name != "cpu":
        worlds.insert(0, left)
    for world in worlds:
        if plan_for(config, hf, gpu, world, exact=False).fits:
            return world
    return unit


def gpus_of_node() -> int:
    """GPUs of this node where torchrun started the process on it, else `GPUS_PER_NODE`."""
    import torch

    local = os.environ.get("LOCAL_WORLD_SIZE")
    if local is None:
        return GPUS_PER_NODE
    # torchrun may have started fewer ranks than the node has GPUs: the fleet takes the others.
    return max(int(local), torch.cuda.device_count() or GPUS_PER_NODE)


def _fleet(config: Config) -> int:
    return config.rollout.workers * config.rollout.tensor_parallel


def gpu_of(config: Config) -> Gpu:
    """The kind of GPU to plan for: this machine's, or without one an H100, or the CPU for a CPU's
    settings.
    """
    import torch

    if not torch.cuda.is_available():
        full_precision = config.precision.train is Precision.float32
        on_cpu = full_precision and config.rollout.weight_backend is WeightBackend.ray
        return GPUS["cpu" if on_cpu else "h100-80gb"]
    memory = torch.cuda.get_device_properties(0).total_memory
    capability = torch.cuda.get_device_capability()

    def distance(gpu: Gpu) -> tuple[bool, int]:
        return gpu.capability != capability, abs(gpu.memory - memory)

    known = [gpu for gpu in GPUS.values() if gpu.name != "cpu"]
    return replace(min(known, key=distance), memory=memory)
