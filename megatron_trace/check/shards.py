"""Whether the data that a run names is there."""

from collections.abc import Iterator
from typing import Any

from megatron_trace.config import Config, SettingError, all_settings
from megatron_trace.config.sources import all_sources
from megatron_trace.envs import ENVIRONMENTS
from megatron_trace.files.kinds import data_paths
from megatron_trace.files.problems import BadData
from megatron_trace.files.remote import shown
from megatron_trace.files.shards import shard_paths


def check_shards(config: Config) -> None:
    """Refuse data that this machine does not have: of every setting that is a pattern of files.

    Raises:
        SettingError: a pattern, or one part of its braces, matches no file, a shard is missing, or
            task data are of a kind that cannot be read.
    """
    sources = [(source.setting, source.files) for source in all_sources(config.data)]
    for name, pattern in [*sources, *file_patterns(config)]:
        try:
            # A user's environment may read files of any kind.
            data_paths(pattern) if name.startswith("data.") else shard_paths(pattern)
        except FileNotFoundError as error:
            remedy = (
                f"{error}; correct the path, or make the files (docs/environments/task_data.md)"
            )
            raise SettingError(name, shown(pattern), remedy) from None
        except BadData as error:
            raise SettingError(name, shown(pattern), str(error)) from None


def file_patterns(config: Config) -> Iterator[tuple[str, Any]]:
    """Dotted names and values of the patterns, of the environment's too; without the sources of
    tasks, and without those that another setting stands for.
    """
    environment = config.environment
    options = ENVIRONMENTS.settings(environment.name, environment.options)
    values = {one.name: one.value for one in options}
    for one in [*all_settings(config), *options]:
        if not one.files or (not one.value and values.get(one.or_else)):
            continue
        if one.name.startswith("data."):
            continue
        if isinstance(one.value, dict):
            yield from ((f"{one.name}.{key}", pattern) for key, pattern in one.value.items())
        else:
            yield one.name, one.value
