"""Whether the data that a run names is there."""

from megatron_trace.config import Config, SettingError
from megatron_trace.files.shards import shard_paths


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
        try:
            shard_paths(pattern)
        except FileNotFoundError as error:
            remedy = f"{error}; build them with tools/build_geo_hop.py or correct the path"
            raise SettingError(name, pattern, remedy) from None
