"""Countdown's tasks: of every level, true to their values, and never both trained on and held out."""

from collections import Counter

import pytest

from megatron_trace.config import EnvironmentConfig
from megatron_trace.data.tasks import load_tasks
from megatron_trace.envs import make_environments
from megatron_trace.envs.countdown_rules import random_value

SIZES = (3, 4)


@pytest.fixture(scope="module")
def tool(load_tool):
    return load_tool("build_countdown")


@pytest.fixture(scope="module")
def build(tool):
    def run(folder, *more):
        line = f"--out {folder} --numbers 3 4 --train 60 --heldout 16 --largest 12"
        tool.build(tool.parse([*line.split(), *more]))
        return folder

    return run


@pytest.fixture(scope="module")
def sets(build, tmp_path_factory):
    folder = build(tmp_path_factory.mktemp("countdown"))
    return {
        name: {size: load_tasks(str(folder / f"{name}_{size}-*.tar")) for size in SIZES}
        for name in ("train", "heldout")
    }


def test_no_numbers_are_both_trained_on_and_held_out(tool, sets) -> None:
    for name, by_size in sets.items():
        drawn = {tuple(task["numbers"]) for tasks in by_size.values() for task in tasks}
        assert {tool.is_heldout(numbers, 0) for numbers in drawn} == {name == "heldout"}


def test_tasks_are_what_the_environment_takes_and_each_is_there_once(sets) -> None:
    episode = make_environments(EnvironmentConfig("countdown", 5))()
    tasks = [task for by_size in sets.values() for one in by_size.values() for task in one]
    for task in tasks:
        episode.check_task(task)
        assert 10 <= task["target"] <= 100 and max(task["numbers"]) <= 12
    assert len({task["id"] for task in tasks}) == len(tasks)
    assert len({(*task["numbers"], task["target"]) for task in tasks}) == len(tasks)


def test_every_task_tells_its_value_and_can_be_solved(sets) -> None:
    for size in SIZES:
        for task in sets["train"][size]:
            expected = random_value(task["numbers"], task["target"], size - 1)
            assert len(task["numbers"]) == size
            assert task["random_value"] == pytest.approx(expected) and expected > 0


def test_the_levels_are_equally_many(tool, sets) -> None:
    levels = Counter(tool.level_of(task["random_value"]) for task in sets["train"][4])
    assert levels == dict.fromkeys(tool.LEVELS, 15)
    # Three numbers have no hard tasks, and no more of the others for it.
    levels = Counter(tool.level_of(task["random_value"]) for task in sets["train"][3])
    assert levels == {"easy": 15, "medium": 15}


def test_the_same_seed_gives_the_same_bytes_and_another_one_does_not(build, tmp_path) -> None:
    first, again = build(tmp_path / "first"), build(tmp_path / "again")
    other = build(tmp_path / "other", "--seed", "1")
    for path in first.iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes()
        assert (other / path.name).read_bytes() != path.read_bytes()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--numbers 3 7", "--numbers 7: must be from 3 to 6"),
        ("--train 0", "--train 0: must be at least 1"),
        ("--highest-target 5", "--highest-target 5: is below --lowest-target"),
    ],
)
def test_a_wrong_argument_is_one_line(tool, line, message, capsys) -> None:
    with pytest.raises(SystemExit):
        tool.parse(line.split())
    assert message in capsys.readouterr().err
