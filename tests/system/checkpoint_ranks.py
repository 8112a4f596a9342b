"""Run by torchrun from test_checkpoint.py: trains, saves and goes on from checkpoints.

usage: checkpoint_ranks.py JOB.pickle, a dict with `rows`, `folder` and `runs`: name -> (settings,
the checkpoint to go on from or None). A run takes an update unless it loads, saves
<folder>/<name>.checkpoint while it takes another, and leaves the second update's metrics and the
weights after it in <folder>/<name>.pickle.
"""

import pickle
import sys
from pathlib import Path

from omegaconf import OmegaConf
from torch import distributed

from megatron_trace.config import Config
from megatron_trace.policy.policy import Policy
from megatron_trace.policy.ranks import RankGroup


def run(name: str, settings: list[str], source: Path | None, rows: list, folder: Path) -> None:
    config = OmegaConf.to_object(
        OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.from_dotlist(settings))
    )
    group = RankGroup(Policy(config))
    if not group.leader:
        group.follow()
        return
    if source is None:
        group.call(Policy.update, rows)
    else:
        group.call(Policy.load_checkpoint, source, config.learning.batching.updates_per_step)
    checkpoint = folder / f"{name}.checkpoint"
    checkpoint.mkdir()
    group.call(Policy.begin_checkpoint, checkpoint)
    metrics = group.call(Policy.update, rows)
    problem = group.call(Policy.finish_checkpoint, True)
    weights = {key: tensor.clone() for key, tensor in group.call(Policy.weights)}
    group.stop()
    (folder / f"{name}.pickle").write_bytes(pickle.dumps((problem, metrics, weights)))


if __name__ == "__main__":
    job = pickle.loads(Path(sys.argv[1]).read_bytes())
    for name, (settings, source) in job["runs"].items():
        run(name, settings, source, job["rows"], job["folder"])
    distributed.destroy_process_group()
