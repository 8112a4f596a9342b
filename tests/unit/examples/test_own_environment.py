"""The environment of examples/environment runs from its file, by its name alone."""

import base64
import os
import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from megatron_trace.check.load import load_config
from megatron_trace.config import SettingError
from megatron_trace.data.tasks import load_tasks
from megatron_trace.envs import Environment, Reply, ToolCall, make_environments
from megatron_trace.envs.contract import check_contract

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "examples/environment"
FILE = FOLDER / "shop.py"
TASKS = load_tasks(str(FOLDER / "tasks.jsonl"))


def call(name: str, **arguments: Any) -> Reply:
    return Reply("", calls=(ToolCall(name, arguments, "call_0"),))


def episode(*overrides: str) -> Environment:
    config = load_config(None, [f"environment.name={FILE}", *overrides])
    made = make_environments(config.environment)()
    made.reset(TASKS[0])
    return made


def told(shop: Environment, reply: Reply) -> str:
    (message,) = shop.step(reply).observation
    return message["content"]  # type: ignore[index]


def test_it_is_one_file_of_at_most_sixty_lines_and_ten_tasks() -> None:
    assert len(FILE.read_text().splitlines()) <= 60
    assert len(TASKS) == 10


def test_it_keeps_the_contract() -> None:
    make = make_environments(load_config(None, [f"environment.name={FILE}"]).environment)
    for task in TASKS:
        item = next(iter(task["prices"]))
        calls = [call("price", item=item), call("multiply_and_add", terms=[[2, 3]])]
        check_contract(make, task, [*calls, Reply(str(task["answer"]))])


def test_its_tools_find_the_answer_of_every_task() -> None:
    for task in TASKS:
        _, _, one, first, _, two, second, _ = task["question"].split()
        prices = task["prices"]
        shop = episode()
        terms = [
            [int(one), prices[singular(first, prices)]],
            [int(two), prices[singular(second, prices)]],
        ]
        assert told(shop, call("multiply_and_add", terms=terms)) == str(task["answer"])


def singular(word: str, prices: dict[str, int]) -> str:
    return next(item for item in prices if word.startswith(item))


def test_the_right_answer_earns_one() -> None:
    assert episode().step(Reply(f" {TASKS[0]['answer']} ")).reward == 1.0
    assert episode().step(Reply("0")).reward == 0.0


def test_its_option_counts_and_is_checked() -> None:
    shop = episode("environment.options.shop.most_lookups=1")
    assert told(shop, call("price", item="pen")) == "4"
    assert told(shop, call("price", item="pen")) == "Error: ValueError: the shop has closed."
    with pytest.raises(SettingError, match=r"options.shop.most_lookups = 0: must be at least 1"):
        episode("environment.options.shop.most_lookups=0")


def test_a_relative_file_is_made_absolute_for_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)
    config = load_config(None, ["environment.name=shop.py"])
    assert config.environment.name == str(FILE)


def test_another_process_in_another_folder_makes_its_episodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(FOLDER)
    config = load_config(None, ["environment.name=shop.py"])
    made = base64.b64encode(pickle.dumps(partial(make_environments, config.environment))).decode()
    program = (
        f"import base64, pickle; made = pickle.loads(base64.b64decode({made!r}))()()\n"
        "print([tool['function']['name'] for tool in made.tools])"
    )
    found = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout == "['multiply_and_add', 'price']\n"
