"""Strategies by name: every file of `strategies/` is one, and so is any other file that defines a `Strategy`."""

import importlib
import importlib.util
import pkgutil
from pathlib import Path
from types import ModuleType

from megatron_trace.allocation import strategies
from megatron_trace.allocation.strategy import Strategy
from megatron_trace.config import AllocationConfig, SettingError

STRATEGIES = sorted(module.name for module in pkgutil.iter_modules(strategies.__path__))
"""Names of the strategies that come along."""


def strategy_class(name: str) -> type[Strategy]:
    """The strategy called `name`, or that of the file `name`.py.

    Raises:
        SettingError: there is none.
    """
    if name in STRATEGIES:
        module = importlib.import_module(f"{strategies.__name__}.{name}")
    elif name.endswith(".py") and Path(name).is_file():
        module = _load(Path(name))
    else:
        remedy = f"must be one of {', '.join(STRATEGIES)}, or a Python file that defines a Strategy"
        raise SettingError("allocation.strategy", name, remedy)
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Strategy)
        and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        remedy = f"must define one class that derives from Strategy; it defines {len(found)}"
        raise SettingError("allocation.strategy", name, remedy)
    return found[0]


def make_strategy(settings: AllocationConfig) -> Strategy:
    """The strategy that `settings` names, with its options.

    Raises:
        SettingError: there is none, or settings and options cannot work with it.
    """
    for name in settings.options:
        if name not in {*STRATEGIES, Path(settings.strategy).stem}:
            remedy = f"options belong to a strategy: {', '.join(STRATEGIES)}"
            raise SettingError(f"allocation.options.{name}", settings.options[name], remedy)
    return strategy_class(settings.strategy)(settings, Path(settings.strategy).stem)


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"strategy_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
