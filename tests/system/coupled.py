"""Run by torchrun from test_sampler_trainer: train ranks and a fleet together, compared after every
version.

usage: coupled.py OUT.json MODEL section.name=value ... Rank 0 writes, for every policy version, the
mean |Δ| between sampler and trainer of the log-probabilities of the sampled tokens and of the
predictions, how much the predictions vary, and how many turns began a new history, as a list of
dicts. With environment.thoughts=strip the environment is a chat.
"""

import json
import sys
from pathlib import Path

import numpy as np
from torch import distributed

from megatron_trace.allocation import Allocator
from megatron_trace.check.load import load_config
from megatron_trace.config import Config, Thoughts
from megatron_trace.learning import rows_from_trees
from megatron_trace.policy.policy import Policy
from megatron_trace.policy.ranks import RankGroup
from megatron_trace.rollout.fleet import Fleet
from megatron_trace.rollout.sampling import sample_trees
from megatron_trace.training.trainer import Trainer
from megatron_trace.tree import RolloutTree
from tests.system.conftest import letter_chats, letter_environments

VERSIONS = 4
TASKS = [{"id": letter, "letter": letter} for letter in "abcdefgh"]


class Silent:
    def phase(self, name: str, total: int | None = None) -> None: ...

    def advance(self, n: int = 1) -> None: ...


def sampler_predictions(trees: list[RolloutTree]) -> list[float]:
    """The sampler's prediction of every anchor, in the order in which rows predict them."""
    values = []
    for tree in trees:
        seen: set[int] = set()
        for leaf in tree.leaves():
            fresh = [index for index in tree.path(leaf) if index not in seen]
            seen.update(fresh)
            values += [
                tree.turns[index].prediction for index in fresh if not tree.turns[index].terminal
            ]
    return values


def compare(group: RankGroup, trees: list[RolloutTree]) -> dict[str, float]:
    rows = rows_from_trees(trees)
    learn, predict = [
        np.concatenate([getattr(row, name) for row in rows]) for name in ("learn", "predict")
    ]
    sampler = np.concatenate([row.sampler_logprob for row in rows])[learn]
    trainer = np.concatenate(group.call(Policy.logprobs, rows))[learn]
    trainer_predictions = np.concatenate(group.call(Policy.predictions, rows))[predict]
    return {
        "logprob_gap": float(np.abs(sampler - trainer).mean()),
        "prediction_gap": float(
            np.abs(np.array(sampler_predictions(trees)) - trainer_predictions).mean()
        ),
        "prediction_spread": float(np.std(trainer_predictions)),
        "tokens": int(learn.sum()),
        "new_histories": sum(turn.new_history is not None for tree in trees for turn in tree.turns),
    }


def main(out: Path, config: Config) -> None:
    group = RankGroup(Policy(config))
    if not group.leader:
        group.follow()
        return
    thinks = config.environment.thoughts is Thoughts.strip
    environments = letter_chats if thinks else letter_environments
    fleet = Fleet(config, config.model.path, environments=environments)
    allocator, trainer, seen = Allocator(config.allocation), Trainer(config, group), []
    for version in range(VERSIONS):
        trainer.push(fleet, version)
        trees, _ = sample_trees(fleet, allocator, TASKS, f"step {version}", Silent())
        seen.append(compare(group, trees))
        group.call(Policy.update, rows_from_trees(trees))
    fleet.close()
    group.stop()
    out.write_text(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]), load_config(None, [f"model.path={sys.argv[2]}", *sys.argv[3:]]))
    distributed.destroy_process_group()
