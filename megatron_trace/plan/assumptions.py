"""What the plan assumes because it can only be known from a run. Each is a flag of
tools/plan_cluster.py.
"""

import math
from dataclasses import dataclass, field, fields
from typing import Any

from megatron_trace.config import SettingError
from megatron_trace.plan.notation import flag

SHARE_SUFFIXES = ("_utilisation", "_fullness", "_share", "_depth")
"""How the names of shares end; all other assumptions are sizes and times."""


def assumed(default: Any, meaning: str) -> Any:
    """A number with its meaning, which the plan prints."""
    return field(default=default, metadata={"meaning": meaning})


@dataclass(frozen=True)
class Assumptions:
    """Shares of the stated peaks, sizes that are not counted, and the lengths of rollouts."""

    train_utilisation: float = assumed(
        0.40, "share of the peak FLOP/s that the train ranks' matrix products reach"
    )
    prefill_utilisation: float = assumed(
        0.50, "share of the peak FLOP/s that an engine reaches on prompts"
    )
    decode_utilisation: float = assumed(
        0.60, "share of the memory bandwidth that an engine reaches while sampling"
    )
    link_utilisation: float = assumed(
        0.70, "share of NVLink's and the network's bandwidth that is reached"
    )
    decode_overhead_ms: float = assumed(
        4.0, "time of one decoding step beside reading memory, in ms"
    )
    collective_us: float = assumed(
        12.0,
        "latency of a small all-reduce among an engine's GPUs, in µs; two for each layer and token",
    )
    decode_fullness: float = assumed(
        0.60,
        "live rollouts over a phase, as a share of what an engine holds at once (the tail is thin)",
    )
    packing_fullness: float = assumed(0.95, "share of a micro-batch that is tokens")
    train_reserve_gib: float = assumed(
        5.0,
        "GiB of a train GPU for CUDA, NCCL, cuBLAS and fragments",
    )
    rollout_reserve_gib: float = assumed(
        5.0, "GiB of an engine's share for CUDA, graphs, activations and the sampler"
    )
    history_share: float = assumed(
        0.50, "mean history of a finished rollout, as a share of max_history_tokens"
    )
    sampled_share: float = assumed(
        0.50, "sampled tokens of a history; the rest is prompt and observations"
    )
    branch_depth: float = assumed(0.50, "where a continuation branches, as a share of the history")
    prompt_share: float = assumed(0.25, "prompt of a task, as a share of the history")
    tree_rollouts: float = assumed(8.0, "rollouts of a task, continuations included")
    tree_reuse: float = assumed(
        0.0,
        "tokens of all rollouts for each token that is computed (tree_reuse in metrics.jsonl); 0: "
        "rollouts share prompts and anchors' histories, and nothing else",
    )


def check_assumptions(assumptions: Assumptions) -> None:
    """Refuse shares outside (0, 1] and negative sizes.

    Raises:
        SettingError: for the first of them, named by its flag.
    """
    # By the names, so that a new assumption is checked without another entry here.
    for each in fields(assumptions):
        value = getattr(assumptions, each.name)
        if each.name.endswith(SHARE_SUFFIXES):
            if not 0.0 < value <= 1.0:
                raise SettingError(flag(each.name), value, "must be a share, above 0 and at most 1")
        elif each.name == "tree_reuse" and 0.0 < value < 1.0:
            raise SettingError(flag(each.name), value, "must be 0 or at least 1")
        elif each.name == "tree_rollouts" and value < 1.0:
            raise SettingError(flag(each.name), value, "must be at least 1")
        elif not 0.0 <= value < math.inf:
            raise SettingError(flag(each.name), value, "must not be negative, nor infinite")
