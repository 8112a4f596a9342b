"""The best layouts of a cluster: every candidate that passes a run's own checks and fits, by
estimated step time.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from megatron_trace.check.layout import check_layout
from megatron_trace.config import Config, Recompute, SettingError
from megatron_trace.plan.assumptions import Assumptions
from megatron_trace.plan.candidates import candidates
from megatron_trace.plan.layout import check_engines, train_gpus
from megatron_trace.plan.machines import Cluster
from megatron_trace.plan.planner import Plan, make_plan


@dataclass(frozen=True)
class Found:
    """What a search saw.

    Attributes:
        best: plans that fit, the shortest step first.
        tried, refused, too_large: layouts in all, those that a check refused, and those that do not
            fit.
        refusals: for each refused setting the number of layouts and the most frequent message; the
            most frequent first.
    """

    best: list[Plan]
    tried: int
    refused: int
    too_large: int
    refusals: list[tuple[int, str]]


def search(
    config: Config,
    hf: dict[str, Any],
    cluster: Cluster,
    assumptions: Assumptions,
    *,
    keep: int = 10,
) -> Found:
    """Try the `candidates` of `config` on `cluster`, by arithmetic alone.

    Args:
        keep: the most plans to return.

    Raises:
        SettingError: the cluster has one GPU, or its GPUs lack the arithmetic of
            `config.precision`.
    """
    if cluster.gpus < 2:
        remedy = "leaves nothing to search: engines and train ranks need one each"
        raise SettingError("--gpus-per-node", 1, remedy)
    plans: list[Plan] = []
    refusals: dict[str, Counter[str]] = defaultdict(Counter)
    for candidate in candidates(config, hf, cluster):
        # The checks are a run's own, so a layout that is printed starts. They come first because a
        # plan is slower, and undefined for sizes that do not divide.
        try:
            world = train_gpus(candidate, cluster)
            check_engines(candidate, cluster, world)
            check_layout(candidate, hf, world)
        except SettingError as error:
            # The messages hold numbers of the layout: counted by setting they show what refuses
            # most.
            setting = str(error).partition(" = ")[0]
            refusals[setting][str(error)] += 1
            continue
        plans.append(make_plan(candidate, hf, cluster, assumptions, exact=False))
    fitting = best_first(plans)
    reasons = [(counter.total(), counter.most_common(1)[0][0]) for counter in refusals.values()]
    refused = sum(count for count, _ in reasons)
    return Found(
        best=fitting[:keep],
        tried=len(plans) + refused,
        refused=refused,
        too_large=len(plans) - len(fitting),
        refusals=sorted(reasons, reverse=True),
    )


def best_first(plans: Sequence[Plan]) -> list[Plan]:
    """The plans that fit, the shortest step first; of equal steps the one with the emptiest fullest
    GPU.
    """

    def order(plan: Plan) -> tuple[float, int]:
        return plan.seconds.step, max(stage.total for stage in plan.stages)

    return sorted((plan for plan in plans if plan.fits), key=order)


def overrides(plan: Plan) -> str:
    """The settings of a plan that a search varies, to append to the command that made it."""
    parallel, rollout, recompute = plan.config.parallel, plan.config.rollout, plan.config.recompute
    # All that `candidates` varies, defaults too: the configuration file may set them otherwise.
    settings = {
        "parallel.tensor": parallel.tensor,
        "parallel.sequence": _text(parallel.sequence),
        "parallel.pipeline": parallel.pipeline,
        "parallel.interleave": parallel.interleave,
        "parallel.context": parallel.context,
        "parallel.expert": parallel.expert,
        "parallel.expert_tensor": _text(parallel.expert_tensor),
        "recompute.granularity": recompute.granularity.value,
        "rollout.workers": rollout.workers,
        "rollout.tensor_parallel": rollout.tensor_parallel,
    }
    if recompute.granularity is Recompute.selective:
        settings["recompute.modules"] = "[" + ",".join(recompute.modules) + "]"
    if recompute.granularity is Recompute.full:
        settings |= {"recompute.method": recompute.method, "recompute.layers": recompute.layers}
    return " ".join(f"{name}={value}" for name, value in settings.items())


def _text(value: int | bool | None) -> str:
    return "null" if value is None else str(value).lower()
