"""Strategies: each is a file of `strategies/`, or any other file that defines a `Strategy`."""

from dataclasses import replace

from megatron_trace.allocation.strategy import Strategy
from megatron_trace.config import AdvantageConfig, AllocationConfig, SettingError
from megatron_trace.config.plugins import PluginKind, classes_of, methods_missing, option_name

STRATEGIES: PluginKind[type[Strategy]] = PluginKind(
    word="strategy",
    setting="allocation.strategy",
    section="allocation.options",
    package="megatron_trace.allocation.strategies",
    defines="one class that derives from Strategy",
    definitions=classes_of(Strategy),
    fault=methods_missing(Strategy, "plan"),
)
"""All strategies."""


def strategy_class(name: str) -> type[Strategy]:
    """The strategy called `name`, or that of the file `name`.

    Raises:
        SettingError: there is none.
    """
    return STRATEGIES.find(name)


def make_strategy(settings: AllocationConfig) -> Strategy:
    """The strategy that `settings` names, with its options.

    Raises:
        SettingError: there is none, or settings and options cannot work with it.
    """
    name = settings.strategy
    options = STRATEGIES.options(name, settings.options)
    strategy = STRATEGIES.find(name)
    try:
        return strategy(settings, options, f"allocation.options.{option_name(name)}")
    except Exception as error:
        if isinstance(error, SettingError) or not name.endswith(".py"):
            raise
        raise STRATEGIES.failure(name, "cannot be made", error) from error


def advantage_settings(allocation: AllocationConfig, advantage: AdvantageConfig) -> AdvantageConfig:
    """`advantage` with the estimator's name filled in: where it is null, the strategy's own.

    Raises:
        SettingError: there is no such strategy.
    """
    if advantage.name is not None:
        return advantage
    return replace(advantage, name=strategy_class(allocation.strategy).advantage)
