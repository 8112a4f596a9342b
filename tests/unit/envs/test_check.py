"""The command that an environment's author runs says what breaks the contract."""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from megatron_trace.envs.check import main, watched

ROOT = Path(__file__).parents[3]
SHOP = ROOT / "examples/environment/shop.py"
TASKS = ROOT / "examples/environment/tasks.jsonl"

FILE = """
import itertools, random
from typing import Any
from megatron_trace.envs import ToolEnvironment, tool

seen = itertools.count()

class Odd(ToolEnvironment):
    def start(self, task):
        self.state["n"] = 0
        return task["question"] + PROMPT

    def score(self, answer):
        return SCORE

    @tool
    def look(self, word: str) -> str:
        \"\"\"Look.

        Args:
            word: a word.
        \"\"\"
        LOOK
"""


def write(folder: Path, prompt: str = '""', score: str = "0.5", look: str = "return word") -> str:
    file = folder / "odd.py"
    text = FILE.replace("PROMPT", prompt).replace("SCORE", score).replace("LOOK", look)
    file.write_text(text)
    tasks = [{"id": str(n), "question": f"Which is {n}?", "answer": "forty"} for n in range(5)]
    (folder / "t.jsonl").write_text("".join(json.dumps(task) + "\n" for task in tasks))
    return str(file)


def run(folder: Path, capsys: Any, **odd: str) -> tuple[int, str]:
    code = main([write(folder, **odd), "--tasks", str(folder / "t.jsonl")])
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def test_the_example_keeps_its_contract(capsys: Any) -> None:
    options = ["--option", "most_lookups=2"]
    assert main([str(SHOP), "--tasks", str(TASKS), *options]) == 0
    out = capsys.readouterr().out
    assert out.startswith("kept: 30 random episodes of 10 tasks") and "warning" not in out


@pytest.mark.parametrize(
    ("odd", "text"),
    [
        ({"look": "return str(next(seen))"}, "observation is .* where it was .* after the same"),
        ({"score": "random.random()"}, "reward is .* where it was"),
        ({"score": "float('nan')"}, "the reward is nan, which is not in"),
        ({"prompt": "str(next(seen))"}, "a second reset gives another prompt"),
        ({"look": "self.state['n'] = {1, 2}"}, "snapshot: raises TypeError"),
        ({"prompt": "[]"}, "reset: raises TypeError"),
    ],
)
def test_what_breaks_the_contract_is_named(
    tmp_path: Path, capsys: Any, odd: dict[str, str], text: str
) -> None:
    code, said = run(tmp_path, capsys, **odd)
    assert code == 1
    assert re.search(rf"^broken: task \d: .*{text}", said), said


def test_a_prompt_that_holds_the_answer_is_a_warning(tmp_path: Path, capsys: Any) -> None:
    code, said = run(tmp_path, capsys, prompt="task['answer']")
    assert code == 0 and "warning: 5 prompts hold their task's answer: 0, 1, 2" in said


def test_what_cannot_be_read_is_one_line(tmp_path: Path, capsys: Any) -> None:
    write(tmp_path)
    assert main(["nothing", "--tasks", str(tmp_path / "t.jsonl")]) == 1
    assert main([str(SHOP), "--tasks", str(tmp_path / "none.jsonl")]) == 1
    assert main([str(SHOP), "--tasks", str(TASKS), "--option", "most_lookups=0"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and all(line.startswith("broken: ") for line in lines)


def test_a_step_that_holds_the_interpreter_is_noticed() -> None:
    # One call in C, which gives no other thread a turn.
    _, blocked = watched(lambda: sum(range(20_000_000)))
    _, waited = watched(lambda: time.sleep(0.3))
    assert waited < 0.2 < blocked


def test_calls_of_tools_that_fail_are_counted_and_the_first_is_shown(
    tmp_path: Path, capsys: Any
) -> None:
    code, said = run(tmp_path, capsys, look="return self.task['wrod']")
    found = re.search(r"calls of look with random arguments: (\d+), (\d+) failed; (.*)", said)
    assert found is not None and code == 0
    assert int(found[1]) == int(found[2]) > 0
    assert found[3] == "the first was told: Error: KeyError: 'wrod'."
    assert "warning: no call of look brought a result" in said
    # What a tool says of itself is no failure.
    _, said = run(tmp_path, capsys, look="return 'Error: no such word'")
    assert re.search(r"calls of look with random arguments: \d+, 0 failed\n", said)
