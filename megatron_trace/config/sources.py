"""Sources of tasks: what `data.train` and `data.heldout` name."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from megatron_trace.config.error import SettingError, did_you_mean
from megatron_trace.config.sampling import DataConfig


@dataclass(frozen=True)
class TaskFiles:
    """What stands under the name of a source; the files alone are enough.

    Attributes:
        files: path, glob or brace pattern of data files, or URLs.
        weight: the source's part of all tasks, in relation to the other weights.
        map: FILE.py:FUNCTION that makes a task of a row; None: that of `data.map`.
    """

    files: str
    weight: float = 1.0
    map: str | None = None


HELDOUT_KIND = dict[str, str | TaskFiles]
TRAIN_KIND = str | HELDOUT_KIND
"""Types of the two settings, which OmegaConf cannot express."""

KINDS = {"data.train": TRAIN_KIND, "data.heldout": HELDOUT_KIND}


@dataclass(frozen=True)
class Source:
    """Files of tasks under a setting.

    Attributes:
        setting: dotted name, such as `data.train`, or `data.train.maths` of several.
        files: path, glob or brace pattern, or URLs.
        name: `maths`; "" where `data.train` itself names files.
        weight: its part of all tasks, in relation to the other weights.
        map: FILE.py:FUNCTION, or None: rows are tasks.
        map_setting: dotted name of the setting that says so.
        prefix: put before the ids of its tasks: two sources may hold the same ids.
    """

    setting: str
    files: str
    name: str = ""
    weight: float = 1.0
    map: str | None = None
    map_setting: str = "data.map"
    prefix: str = ""


def train_sources(data: DataConfig) -> list[Source]:
    """The sources of training tasks, in the order in which they are written.

    Raises:
        SettingError: an unknown key, a value of another type, a weight that is not above 0, or no
            source.
    """
    if isinstance(data.train, str):
        _refuse_password("data.train", data.train)
        return [Source("data.train", data.train, map=data.map)]
    if not isinstance(data.train, Mapping) or not data.train:
        remedy = "must be files, or name -> files, or name -> {files, weight, map}"
        raise SettingError("data.train", data.train, remedy)
    sources = [_source("data.train", name, given, data.map) for name, given in data.train.items()]
    return [replace(source, prefix=f"{source.name}/") for source in sources]


def heldout_sources(data: DataConfig) -> list[Source]:
    """The held-out sets, in the order in which they are written.

    Raises:
        SettingError: an unknown key, or a value of another type.
    """
    for name, given in data.heldout.items():
        if isinstance(given, Mapping) and "weight" in given:
            remedy = "must be left out; a held-out set is played whole and has no weight"
            raise SettingError(f"data.heldout.{name}.weight", given["weight"], remedy)
    return [_source("data.heldout", name, given, data.map) for name, given in data.heldout.items()]


def all_sources(data: DataConfig) -> list[Source]:
    """All sources of `data.train`, then those of `data.heldout`.

    Raises:
        SettingError: see `train_sources` and `heldout_sources`.
    """
    return [*train_sources(data), *heldout_sources(data)]


PASSWORD = re.compile(r"://[^/\s]*:[^/\s]*@")
"""Name and password within a URL."""


def _refuse_password(setting: str, given: Any) -> None:
    """Refuse a URL with a password: the run's folder and its loggers keep the settings."""
    for text in given.values() if isinstance(given, Mapping) else [given]:
        if isinstance(text, str) and PASSWORD.search(text):
            remedy = "holds a password, which the run would write down; give it to fsspec instead"
            raise SettingError(setting, PASSWORD.sub("://***@", text), remedy)


def _source(section: str, name: str, given: Any, common_map: str | None) -> Source:
    setting = f"{section}.{name}"
    _refuse_password(setting, given)
    if isinstance(given, str):
        return Source(setting, given, name, map=common_map)
    if not isinstance(given, Mapping):
        raise SettingError(setting, given, "must be of type str, or {files, weight, map}")
    known = [field.name for field in fields(TaskFiles)]
    if unknown := [key for key in given if key not in known]:
        remedy = f"no such key; {did_you_mean(str(unknown[0]), known)}"
        raise SettingError(f"{setting}.{unknown[0]}", given[unknown[0]], remedy)
    if not isinstance(given.get("files"), str):
        raise SettingError(f"{setting}.files", given.get("files"), "must name data files")
    weight = given.get("weight", TaskFiles.weight)
    number = isinstance(weight, int | float) and not isinstance(weight, bool)
    if not number or not math.isfinite(weight) or weight <= 0:
        raise SettingError(f"{setting}.weight", weight, "must be a finite number above 0")
    own = given.get("map")
    if not isinstance(own, str | None):
        raise SettingError(f"{setting}.map", own, "must be FILE.py:FUNCTION")
    if own is None:
        return Source(setting, given["files"], name, float(weight), common_map)
    return Source(setting, given["files"], name, float(weight), own, f"{setting}.map")
