"""The environment of examples/environment runs from its file, by its name alone."""

import base64
import os
import pickle
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from megatron_trace.check.load import load_config
from megatron_trace.config import SettingError
from megatron_trace.data.tasks import load_tasks
from megatron_trace.envs import Environment, make_environments
from megatron_trace.envs.contract import check_contract

ROOT = Path(__file__).parents[3]
FILE = ROOT / "examples/environment/calculator.py"
TASK = {"id": "0", "question": "What is 12 * 7 + 5 ?", "answer": 89}


def episode(*overrides: str) -> Environment:
    config = load_config(None, [f"environment.name={FILE}", *overrides])
    made = make_environments(config.environment)()
    made.reset(TASK)
    return made


def test_it_is_one_file_of_at_most_seventy_lines() -> None:
    assert len(FILE.read_text().splitlines()) <= 70


def test_it_keeps_the_contract() -> None:
    make = make_environments(load_config(None, [f"environment.name={FILE}"]).environment)
    check_contract(make, TASK, ["<calc>12*7</calc>", "<calc>84 + 5</calc>", "<answer>89</answer>"])
    check_contract(make, TASK, ["<calc>x</calc>", "no tag"])


def test_the_tool_calculates_and_the_right_answer_earns_one() -> None:
    sums = episode()
    assert sums.step("First <calc> 12 * 7 </calc>").observation == "\n<result> 84 </result>\n"
    assert sums.step("<answer> 89 </answer>").reward == 1.0
    assert episode().step("<answer> 88 </answer>").reward == 0.0


def test_the_last_turn_must_answer() -> None:
    assert episode("environment.max_turns=1").step("<calc> 1 + 1 </calc>").done


def test_its_option_counts_and_is_checked() -> None:
    long = episode("environment.options.calculator.digits=1").step("<calc> 12 * 7 </calc>")
    assert "error" in long.observation
    with pytest.raises(SettingError, match=r"options.calculator.digits = 0: must be at least 1"):
        episode("environment.options.calculator.digits=0")


def test_a_relative_file_is_made_absolute_for_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FILE.parent)
    config = load_config(None, ["environment.name=calculator.py"])
    assert config.environment.name == str(FILE)


def test_another_process_in_another_folder_makes_its_episodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(FILE.parent)
    config = load_config(None, ["environment.name=calculator.py"])
    made = base64.b64encode(pickle.dumps(partial(make_environments, config.environment))).decode()
    program = f"import base64, pickle; print(pickle.loads(base64.b64decode({made!r}))()().stop)"
    found = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout == "('</calc>', '</answer>')\n"


def test_the_readme_makes_its_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/sums").mkdir(parents=True)
    readme = (FILE.parent / "README.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    names: dict[str, Any] = {}
    exec(program, names)
    assert load_tasks("data/sums/train-*.tar") == names["tasks"]
