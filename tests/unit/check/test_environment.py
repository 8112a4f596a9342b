"""An environment that an actor could not build is refused at the door."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from megatron_trace.check.environment import COUNTS, check_environment, check_needed_options
from megatron_trace.config import SettingError
from megatron_trace.envs import registry
from tests.unit.check.models import settings


def check(name: str = "search_qa", **options: Any) -> None:
    check_environment(settings(environment__name=name, environment__options=options))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"corpus": "corpus-*.tar", "top_k": 1, "instruction": "", "max_observation_chars": 300},
    ],
)
def test_options_that_the_environment_takes_pass(options: dict[str, Any]) -> None:
    check(**options)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("search", {}, r"^environment.name = 'search': .*did you mean search_qa\?"),
        ("geohop", {}, r"^environment.name = 'geohop': no such environment; there is search_qa"),
        ("search_qa", {"topk": 3}, r"^environment.options.topk = 3: .*did you mean top_k\?"),
        ("search_qa", {"depth": 3}, r"^environment.options.depth = 3: .*there is corpus, .*top_k"),
        (
            "search_qa",
            {"max_turns": 3},
            r"^environment.options.max_turns = 3: set environment.max_turns",
        ),
        ("search_qa", {"top_k": 0}, r"^environment.options.top_k = 0: must be at least 1"),
        (
            "search_qa",
            {"top_k": "three"},
            r"^environment.options.top_k = 'three': must be of type int",
        ),
        ("search_qa", {"top_k": True}, r"^environment.options.top_k = True: must be of type int"),
        ("search_qa", {"top_k": None}, r"^environment.options.top_k = None: must be of type int"),
        ("search_qa", {"corpus": 7}, r"^environment.options.corpus = 7: must be of type str"),
        (
            "search_qa",
            {"max_observation_chars": -1},
            r"max_observation_chars = -1: must be at least 1",
        ),
    ],
)
def test_what_the_environment_cannot_take_is_refused(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingError, match=message):
        check(name, **options)


def maze(size: int, noise: float = 0.0, max_turns: int = 6, **colours: str) -> Callable[[], Any]:
    raise AssertionError("nothing is built")


def test_another_environment_is_known_by_its_factory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.FACTORIES, "maze", maze)
    check("maze", size=-3, noise=1, wall="red")
    with pytest.raises(
        SettingError, match=r"environment.options.noise = nan: must be a finite number"
    ):
        check("maze", size=3, noise=float("nan"))
    check_needed_options(settings(environment__name="maze", environment__options={"size": 3}))
    with pytest.raises(
        SettingError, match=r"environment.options.size = None: must be set: maze needs it"
    ):
        check_needed_options(settings(environment__name="maze"))


def test_counted_options_are_those_that_the_environment_refuses_below_1() -> None:
    for name, options in COUNTS.items():
        for option in options:
            with pytest.raises(ValueError, match=f"{option} must be at least 1"):
                registry.environment_factory(name, corpus="nowhere", **{option: 0})


def test_other_mistakes_do_not_wait_for_the_environments_libraries() -> None:
    program = "import sys, megatron_trace.check.environment; sys.exit('bm25s' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
