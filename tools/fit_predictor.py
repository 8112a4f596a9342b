"""Fit a policy's predictor to its own rollouts, so that a run starts with useful predictions.

    torchrun --nproc-per-node 1 pretrain_trace.py --config configs/geo_hop_cpu.yaml
    run.name=start_rollouts \\
        run.steps=24 allocation.strategy=uniform allocation.group=4 --rollout-only
    python tools/fit_predictor.py runs/start_rollouts --model examples/geo_hop/start_policy --hidden 128

Writes `predictor.safetensors` into the model's folder. The targets are those of training (the
backed-up success of every anchor). A tenth of the trees is held back; on these trees the best epoch
is chosen and its AUC printed.
"""

import argparse
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModel

from megatron_trace.config import AdvantageConfig
from megatron_trace.files.atomic import whole_file
from megatron_trace.learning import rows_from_tree
from megatron_trace.models.predictor import FILE, PredictorHead
from megatron_trace.tree import RolloutTree, load_trees
from megatron_trace.tree.predictions import Outcomes, auc

HELD_BACK = 0.1
BATCH = 256


@torch.no_grad()
def anchors(
    model: torch.nn.Module, trees: Iterable[RolloutTree], settings: AdvantageConfig | None = None
) -> tuple[Tensor, Tensor]:
    """Final hidden states [anchors, hidden] and targets [anchors], by `learning.advantage.backup`."""
    hidden, target = [], []
    for tree in trees:
        for row in rows_from_tree(tree, settings):
            if row.predict.any():
                states = model(input_ids=torch.from_numpy(row.tokens)[None]).last_hidden_state[0]
                hidden.append(states[torch.from_numpy(row.predict)])
                target.append(torch.from_numpy(row.target[row.predict]))
    return torch.cat(hidden).float(), torch.cat(target)


def fit(
    head: PredictorHead, train: tuple[Tensor, Tensor], held: tuple[Tensor, Tensor], epochs: int
) -> None:
    """AdamW on the squared error, as in training; the head ends as in its best epoch on `held`."""
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=1e-2)
    best, state = float("inf"), head.state_dict()
    for _ in range(epochs):
        for picked in torch.randperm(len(train[1])).split(BATCH):
            optimizer.zero_grad()
            prediction = torch.sigmoid(head(train[0][picked]))
            loss = (prediction - train[1][picked]).square().mean()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            error = float((torch.sigmoid(head(held[0])) - held[1]).square().mean())
        if error < best:
            best = error
            state = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    head.load_state_dict(state)


def main() -> None:
    """Read the trees, fit the head, say how good it is, write it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of a run that kept its trees")
    parser.add_argument(
        "--model", type=Path, required=True, help="HF folder of the policy that took the rollouts"
    )
    parser.add_argument(
        "--hidden", type=int, required=True, help="learning.predictor.hidden of the runs to come"
    )
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    trees = [
        tree for file in sorted(args.run.glob("trees/*.jsonl.gz")) for tree in load_trees(file)
    ]
    held_back = max(1, int(HELD_BACK * len(trees)))
    model = AutoModel.from_pretrained(args.model, dtype=torch.float32).eval()
    held = anchors(model, track(trees[:held_back], description="held back"))
    train = anchors(model, track(trees[held_back:], description="hidden states"))
    head = PredictorHead(model.config.hidden_size, args.hidden, args.seed)
    fit(head, train, held, args.epochs)
    with torch.no_grad():
        prediction = torch.sigmoid(head(held[0])).double().numpy()
    success = held[1].double().numpy()
    brier, constant = np.mean((prediction - success) ** 2), np.var(success)
    print(
        f"{len(train[1])} anchors of {len(trees) - held_back} trees; on {len(success)} held back:"
    )
    area = auc(Outcomes(prediction, success, np.ones_like(success)))
    print(f"Brier score {brier:.4f} (constant: {constant:.4f}), AUC {area:.3f}")
    weights = {f"predictor.{name}": tensor for name, tensor in head.state_dict().items()}
    with whole_file(args.model / FILE) as partial:
        save_file(weights, partial)


if __name__ == "__main__":
    main()
