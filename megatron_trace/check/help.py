"""What `--help` lists: all settings and options with default, bounds and meaning."""

import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

from megatron_trace.allocation import STRATEGIES
from megatron_trace.config import Config, all_settings
from megatron_trace.config.plugins import PluginKind
from megatron_trace.config.setting import NamedSetting, shown
from megatron_trace.envs import ENVIRONMENTS
from megatron_trace.learning import ESTIMATORS

LONGEST_DEFAULT = 80
"""Characters of a default that are shown; an environment's instruction may be a paragraph."""


def settings_help(config: Config) -> str:
    """All settings with their defaults. `config` only says which FILE.py are plug-ins.

    Raises:
        SettingError: such a file is no plug-in.
    """
    lines = ["settings (default, bounds, meaning)", *_lines(all_settings(Config()))]
    chosen: list[tuple[PluginKind[Any], str]] = [
        (STRATEGIES, config.allocation.strategy),
        (ESTIMATORS, config.learning.advantage.name or ""),
        (ENVIRONMENTS, config.environment.name),
    ]
    for kind, name in chosen:
        own_file = [name] if name.endswith(".py") else []
        lines += ["", f"options of each {kind.word}, as {kind.section}.NAME.OPTION"]
        for plugin in [*kind.names(), *own_file]:
            lines += _lines(kind.all_options(plugin))
    return "\n".join(lines)


def _lines(settings: Iterable[NamedSetting]) -> Iterator[str]:
    for one in settings:
        bounds = one.bounds.words()
        default = textwrap.shorten(shown(one.value), LONGEST_DEFAULT, placeholder=" ...")
        yield f"  {one.name} = {default}" + (f"   ({bounds})" if bounds else "")
        # A plain dataclass field has no meaning to show.
        if one.meaning:
            yield textwrap.fill(one.meaning, 100, initial_indent=" " * 6, subsequent_indent=" " * 6)
