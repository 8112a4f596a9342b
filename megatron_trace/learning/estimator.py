"""Advantage estimators: each is a file of `advantages/`, or any other file that defines `estimate`.

`estimate(tree, settings)` returns the advantage of every turn of one task's tree, [turns], float64;
the root's is 0. It must not change the tree. An estimator with settings of its own defines a
dataclass `Options`, and takes an instance of it as a third argument.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from megatron_trace.config import AdvantageConfig
from megatron_trace.config.plugins import NoOptions, PluginKind, functions_called, takes
from megatron_trace.tree import RolloutTree, by_histories

Estimator = Callable[[RolloutTree], NDArray[np.float64]]
"""An estimator with its settings filled in: tree -> advantages [turns]."""


def _fault(estimate: Callable[..., NDArray[np.float64]], options_class: type) -> str:
    if issubclass(options_class, NoOptions):
        return "" if takes(estimate, 2) else "without Options, write `estimate(tree, settings)`"
    if takes(estimate, 3):
        return ""
    return "with Options, write `estimate(tree, settings, options)`"


ESTIMATORS: PluginKind[Callable[..., NDArray[np.float64]]] = PluginKind(
    word="estimator",
    setting="learning.advantage.name",
    section="learning.advantage.options",
    package="megatron_trace.learning.advantages",
    defines="a function `estimate(tree, settings)`",
    definitions=functions_called("estimate"),
    fault=_fault,
)
"""All estimators."""

DEFAULT = "trace"
"""The estimator where `learning.advantage.name` is null and no strategy stands behind it: tools,
tests.
"""


def make_estimator(settings: AdvantageConfig) -> Estimator:
    """The estimator that `settings` names, with its options; with `merge` it sees equal histories
    as one, and every turn gets the advantage of its history.

    Raises:
        SettingError: there is none, or its options cannot work.
    """
    name = DEFAULT if settings.name is None else settings.name
    estimate = ESTIMATORS.find(name)
    options = ESTIMATORS.options(name, settings.options)
    given = (settings,) if isinstance(options, NoOptions) else (settings, options)
    if settings.merge:
        return lambda tree: _of_histories(tree, lambda merged: estimate(merged, *given))
    return lambda tree: estimate(tree, *given)


def _of_histories(tree: RolloutTree, estimate: Estimator) -> NDArray[np.float64]:
    merged, turn_of, _ = by_histories(tree)
    return estimate(merged)[list(turn_of)]
