"""Tasks of reasoning-gym: scored by their family, and never by evaluating an answer."""

import re
from pathlib import Path

import pytest

from megatron_trace.data.tasks import load_tasks
from megatron_trace.envs.builtin.math_python import MathPython
from megatron_trace.envs.reasoning_gym_tasks import EVALUATES, check_family, score

reasoning_gym = pytest.importorskip("reasoning_gym", exc_type=ImportError)

FAMILIES = ("gcd", "leg_counting", "number_sorting")


@pytest.fixture(scope="module")
def tool(load_tool):
    return load_tool("build_reasoning_gym")


@pytest.fixture(scope="module")
def folder(tool, tmp_path_factory):
    out = tmp_path_factory.mktemp("reasoning_gym")
    families = " ".join(["gcd:12", *FAMILIES[1:]])
    tool.build(tool.parse(f"--out {out} --size 8 --heldout 4 --families {families}".split()))
    return out


def test_a_family_has_its_size_and_its_held_out_tasks_are_others(folder) -> None:
    train = load_tasks(str(folder / "train-*.tar"))
    of = {name: [t for t in train if t["reasoning_gym"]["family"] == name] for name in FAMILIES}
    assert [len(of[name]) for name in FAMILIES] == [12, 8, 8]
    for name in FAMILIES:
        heldout = load_tasks(str(folder / f"heldout_{name}-*.tar"))
        assert len(heldout) == 4
        assert not {t["question"] for t in heldout} & {t["question"] for t in of[name]}


def test_a_question_that_recurs_is_there_once(tool) -> None:
    entries = list(tool.entries("tower_of_hanoi", 60, 0, {}))
    assert 30 < len(entries) < 60
    assert len({entry["question"] for entry in entries}) == len(entries)


def test_a_family_is_made_by_its_settings(tool) -> None:
    small = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    entries = list(tool.entries("chain_sum", 20, 0, small))
    assert all(re.search(r": \d [+-] \d =$", entry["question"]) for entry in entries)


def test_the_environment_takes_every_task_and_its_own_answer_scores_1(folder) -> None:
    for task in load_tasks(str(folder / "train-*.tar")):
        MathPython(MathPython.Options(), 4).check_task(task)
        own = task["reasoning_gym"]
        assert score(own["answer"], own) == 1.0
        assert score("no answer", own) < 1.0


def test_no_family_that_is_admitted_evaluates_an_answer() -> None:
    # What evaluates its own texts and not an answer.
    harmless = {"bitwise_arithmetic", "basic_arithmetic", "number_sorting", "propositional_logic"}
    root = Path(reasoning_gym.__file__).parent
    evaluates = set()
    for file in root.rglob("*.py"):
        text = file.read_text()
        if "generators_" not in file.name and re.search(
            r"(?<![\w.])(eval|exec|parse_expr|sympify)\(|\.(parse_expr|sympify)\(", text
        ):
            evaluates |= set(re.findall(r'DATASET_NAME = "(\w+)"', text))
    assert evaluates - harmless == EVALUATES - {"composite"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("gcdd", "reasoning-gym has no family gcdd"),
        ("countdown", "the family countdown evaluates answers as Python"),
        ("gcd:x", "gcd:x: the size must be a whole number above 0"),
        (
            "gcd --set lcm.min_numbers=2",
            "lcm.min_numbers=2: must begin with a family of --families",
        ),
        ("gcd --set gcd.digits=2", "gcd has no 'digits'; it has min_numbers, max_numbers"),
        ("gcd --set gcd.min_numbers=two", "the value must be JSON, such as 2 or true"),
        ("gcd --set gcd.max_numbers=1", "max_numbers must be >= min_numbers"),
        ("gcd --size 0", "--size 0: must be at least 1"),
    ],
)
def test_a_wrong_argument_is_one_line(tool, line, message, capsys) -> None:
    with pytest.raises(SystemExit):
        tool.parse(["--families", *line.split()])
    assert message in capsys.readouterr().err


def test_a_family_without_answers_is_one_line(tool, tmp_path) -> None:
    line = f"--out {tmp_path} --size 2 --heldout 1 --families boxnet"
    with pytest.raises(SystemExit, match="error: boxnet: no entry has an answer"):
        tool.build(tool.parse(line.split()))


def test_an_answer_that_makes_a_family_fail_scores_0() -> None:
    assert score("9", {"family": "gcd", "question": "", "answer": None, "metadata": None}) == 0.0
    with pytest.raises(ValueError, match="no family"):
        check_family("none")
