"""Whether the data that a run names is there."""

import glob

from braceexpand import braceexpand

from megatron_trace.config import Config, SettingError


def check_shards(config: Config) -> None:
    """Refuse data that this machine does not have: tasks, held-out sets, and a corpus where there is one.

    Raises:
        SettingError: a pattern, or one part of its braces, matches no file.
    """
    patterns = {"data.train": config.data.train}
    patterns |= {f"data.heldout.{name}": pattern for name, pattern in config.data.heldout.items()}
    if corpus := config.environment.options.get("corpus"):
        patterns["environment.options.corpus"] = corpus
    for name, pattern in patterns.items():
        parts = list(braceexpand(pattern)) if pattern else []
        missing = [part for part in parts if not glob.glob(part)]
        if not parts or missing:
            remedy = f"no such shard: {missing[0]}" if missing else "must name WebDataset shards"
            raise SettingError(
                name,
                pattern,
                f"{remedy}; build them with tools/build_geo_hop.py or correct the path",
            )
