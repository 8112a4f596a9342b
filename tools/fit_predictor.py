"""Fit a policy's predictor to its own rollouts, so that a run starts with useful predictions.

    torchrun --nproc-per-node 1 pretrain_trace.py --config configs/geo_hop_cpu.yaml \\
        run.name=start_rollouts run.steps=24 \\
        allocation.strategy=uniform allocation.group=4 --rollout-only
    python tools/fit_predictor.py runs/start_rollouts --model examples/geo_hop/start_policy

Writes `predictor.safetensors` into the model's folder. It is fitted as in training, as if all trees
were one step. A tenth of the trees is held back, and the scores on them are printed.
"""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rich.progress import track
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModel

from megatron_trace.config import AdvantageConfig, PredictorConfig
from megatron_trace.files.atomic import whole_file
from megatron_trace.learning import rows_from_tree
from megatron_trace.learning.anchors import roots, targets
from megatron_trace.learning.read_out import balanced, learned, unknown
from megatron_trace.models.predictor import FILE, NAMES
from megatron_trace.tree import RolloutTree, load_trees
from megatron_trace.tree.predictions import Outcomes, auc

HELD_BACK = 0.1


class Anchors(NamedTuple):
    """The m anchors of some trees.

    Attributes:
        hidden: final hidden states, float32 [m, hidden].
        target: backed-up success, [m].
        root: which are roots, [m].
        rollouts: of the trees.
    """

    hidden: Tensor
    target: Tensor
    root: Tensor
    rollouts: int


@torch.no_grad()
def anchors(
    model: torch.nn.Module, trees: Iterable[RolloutTree], settings: AdvantageConfig | None = None
) -> Anchors:
    """All anchors of `trees`, with targets by `learning.advantage.backup`."""
    hidden, rows = [], []
    rollouts = 0
    for tree in trees:
        rollouts += len(tree.rollouts)
        for row in rows_from_tree(tree, settings):
            if row.predict.any():
                states = model(input_ids=torch.from_numpy(row.tokens)[None]).last_hidden_state[0]
                hidden.append(states[torch.from_numpy(row.predict)])
                rows.append(row)
    return Anchors(torch.cat(hidden).float(), targets(rows), roots(rows), rollouts)


def main() -> None:
    """Read the trees, fit the head, say how good it is, write it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of a run that kept its trees")
    parser.add_argument(
        "--model", type=Path, required=True, help="HF folder of the policy that took the rollouts"
    )
    args = parser.parse_args()
    trees = [
        tree for file in sorted(args.run.glob("trees/*.jsonl.gz")) for tree in load_trees(file)
    ]
    held_back = max(1, int(HELD_BACK * len(trees)))
    model = AutoModel.from_pretrained(args.model, dtype=torch.float32).eval()
    held = anchors(model, track(trees[:held_back], description="held back"))
    fitted = anchors(model, track(trees[held_back:], description="hidden states"))
    start = unknown(torch.zeros(1, fitted.hidden.shape[1]), torch.zeros(1))
    count = balanced(fitted.root, fitted.rollouts)
    known = learned(start, fitted.hidden, fitted.target, count, PredictorConfig())
    weight, bias = known.mean[None, :-1].float(), known.mean[-1:].float()
    print(f"{len(fitted.target)} anchors of {len(trees) - held_back} trees; on those held back:")
    logit = torch.nn.functional.linear(held.hidden, weight, bias)[:, 0]
    for kind, chosen in (("roots", held.root), ("prefixes", ~held.root)):
        prediction = torch.sigmoid(logit[chosen]).double().numpy()
        success = held.target[chosen].double().numpy()
        brier, constant = np.mean((prediction - success) ** 2), np.var(success)
        area = auc(Outcomes(prediction, success, np.ones_like(success)))
        shown = "no AUC: all ended alike" if area is None else f"AUC {area:.3f}"
        print(f"{kind}: Brier score {brier:.4f} (constant: {constant:.4f}), {shown}")
    with whole_file(args.model / FILE) as partial:
        save_file(dict(zip(NAMES, (weight.contiguous(), bias), strict=True)), partial)


if __name__ == "__main__":
    main()
