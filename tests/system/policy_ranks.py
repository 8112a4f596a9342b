"""Run by torchrun from parity.py: trains a given policy on given rows in several layouts.

usage: policy_ranks.py JOB.pickle, a dict with `rows`, `runs` (name -> settings as dotlists) and
`folder`. Rank 0 leaves what it saw in <folder>/<name>.pickle and the trained policy in
<folder>/<name>/.
"""

import pickle
import sys
from pathlib import Path

from omegaconf import OmegaConf
from torch import distributed

from megatron_trace.config import Config
from megatron_trace.policy.policy import Policy
from megatron_trace.policy.ranks import RankGroup


def run(name: str, settings: list[str], rows: list, folder: Path) -> None:
    config = OmegaConf.to_object(
        OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.from_dotlist(settings))
    )
    group = RankGroup(Policy(config))
    if not group.leader:
        group.follow()
        return
    seen = {
        "metadata": group.call(Policy.weight_metadata),
        "start": [(key, tensor.clone()) for key, tensor in group.call(Policy.weights)],
        "logprobs": group.call(Policy.logprobs, rows),
        "predictions": group.call(Policy.predictions, rows),
    }
    if config.learning.batching.updates_per_step == 1:
        seen["gradient"] = group.call(Policy.gradient, rows)
    group.call(Policy.save_hf, folder / f"{name}-start")
    seen["updates"] = [group.call(Policy.update, rows), group.call(Policy.update, rows)]
    seen["end"] = {key: tensor.clone() for key, tensor in group.call(Policy.weights)}
    group.call(Policy.save_hf, folder / name)
    group.stop()
    (folder / f"{name}.pickle").write_bytes(pickle.dumps(seen))


if __name__ == "__main__":
    job = pickle.loads(Path(sys.argv[1]).read_bytes())
    for name, settings in job["runs"].items():
        run(name, settings, job["rows"], job["folder"])
    distributed.destroy_process_group()
