"""The grid of a comparison: variants × budgets × seeds."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import yaml
from omegaconf import OmegaConf

from megatron_trace.config import SettingError
from megatron_trace.config.flatten import flatten

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")

OWN = {
    "run.seed": "give the seeds with --seeds",
    "run.rollouts": "give the budget of a whole run with --total",
    "run.name": "is that of the trial",
    "run.directory": "give the folder with --out",
}
"""Settings that the comparison itself makes for every trial, with what to do instead."""

OWN_OF_VARIANTS = OWN | {
    "run.steps": "give the budget of a whole run with --total",
    "allocation.budget": "give the budgets with --budgets",
    "allocation.unit": "must be the same for all; set it after --",
}
"""The same where one variant is meant; for all trials, steps and budget are what --total and
--budgets begin with.
"""


@dataclass(frozen=True)
class Variant:
    """Settings under a name, as dotted overrides of the common configuration."""

    name: str
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Trial:
    """One run of the grid: a variant with a step's sampling budget and a seed."""

    variant: Variant
    budget: int
    seed: int

    @property
    def name(self) -> str:
        """Of its run and of its result's file."""
        return f"{self.variant.name}-b{self.budget}-s{self.seed}"


def make_grid(
    variants: Sequence[Variant], budgets: Sequence[int], seeds: Sequence[int]
) -> list[Trial]:
    """All trials, seed by seed, so that a grid that is cut off has whole seeds.

    Raises:
        SettingError: two variants have the same name.
    """
    names = [variant.name for variant in variants]
    for name in names:
        if names.count(name) > 1:
            raise SettingError("--variant", name, "is there twice; give each its own name")
    # Seeds outermost: whenever the grid is stopped, the seeds that are there have all variants to
    # compare.
    return [
        Trial(variant, budget, seed)
        for seed in dict.fromkeys(seeds)
        for budget in dict.fromkeys(budgets)
        for variant in variants
    ]


def strategy_variant(strategy: str) -> Variant:
    """The variant that only names a strategy, or the file that defines one."""
    name = strategy.rsplit("/", 1)[-1].removesuffix(".py")
    return Variant(name, (f"allocation.strategy={strategy}",))


def parse_variant(text: str) -> Variant:
    """`name=section.setting=value,...`; commas within brackets belong to a value.

    Raises:
        SettingError: it is not written so, or sets what the comparison sets itself.
    """
    name, _, overrides = text.partition("=")
    if not NAME.fullmatch(name):
        raise SettingError("--variant", text, "begin it with a name of letters, digits and -_.+")
    parts = tuple(part for part in _split(overrides) if part)
    for part in parts:
        if "=" not in part:
            raise SettingError("--variant", text, f"{part!r} is no section.name=value")
    refuse_own(parts, OWN_OF_VARIANTS)
    return Variant(name, parts)


def refuse_own(overrides: Sequence[str], own: Mapping[str, str]) -> None:
    """Refuse dotted settings that the comparison would override.

    Raises:
        SettingError: at the first one that is in `own`, which maps it to what to do instead.
    """
    for override in overrides:
        try:
            named = flatten(
                cast(dict[str, Any], OmegaConf.to_container(OmegaConf.from_dotlist([override])))
            )
        # What is no YAML is refused where the configuration is read, with a better message.
        except yaml.YAMLError:
            continue
        for name, value in named.items():
            if name in own:
                raise SettingError(name, value, own[name])


def _split(text: str) -> list[str]:
    """At the commas outside brackets."""
    parts, depth = [""], 0
    for char in text:
        depth += (char in "[{(") - (char in "]})")
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return parts


def parse_seeds(texts: Sequence[str]) -> list[int]:
    """`0-4`, `0,2` and `7`, in any number.

    Raises:
        SettingError: one is written otherwise, or a range falls.
    """
    seeds: list[int] = []
    for text in (part for one in texts for part in one.split(",")):
        found = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
        if not found:
            raise SettingError("--seeds", text, "write whole numbers and ranges, as in 0-4 7")
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first:
            raise SettingError("--seeds", text, "the range falls")
        seeds += range(first, last + 1)
    return seeds
