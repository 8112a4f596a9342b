"""The simulated APIs: an episode's own, and nothing that the policy writes is evaluated."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytest.importorskip("bfcl_eval")

import mpmath
from hypothesis import given
from hypothesis import strategies as st

from megatron_trace.envs.bfcl import package
from megatron_trace.envs.bfcl.calls import call_text, parsed
from megatron_trace.envs.bfcl.simulation import Simulation
from tests.unit.envs.bfcl.answers import some

FILES = {
    "id": "x/1.a-b",
    "category": "multi_turn_base",
    "involved_classes": ["GorillaFileSystem", "MathAPI"],
    "initial_config": """{"GorillaFileSystem": {"root": {"w": {"type": "directory",
        "contents": {"a.txt": {"type": "file", "content": "one"}}}}}}""",
}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(st.from_regex(r"[a-z]{2,9}_", fullmatch=True), json_values, max_size=4))
def test_arguments_come_back_from_the_text_of_a_call(arguments: dict[str, Any]) -> None:
    assert parsed(call_text("owner.cd", arguments)) == ("owner", "cd", [], arguments)


def told(text: str) -> str:
    return Simulation(FILES, "policy").call(text)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("ls()", '{"current_directory_content": ["a.txt"]}'),
        ("cat('a.txt')", '{"file_content": "one"}'),
        ("mkdir(dir_name='b')", "None"),
        ("rm(file_name='b')", '{"error": "rm: cannot remove \'b\': No such file or directory"}'),
        ("cat(name='b')", "Error during execution: GorillaFileSystem.cat() got an unexpected "
            "keyword argument 'name'"),
        ("fly()", "Error during execution: name 'fly' is not defined"),
        ("a b()", "Error during execution: invalid syntax (<string>, line 1)"),
        ("add(a=nan,b=1)", "Error during execution: name 'nan' is not defined"),
        ("square_root(2, precision=4)", "{'result': Decimal('1.414')}"),
    ],
)  # fmt: skip
def test_the_policy_is_told_what_bfcl_tells(text: str, answer: str) -> None:
    assert told(text) == answer


@pytest.mark.parametrize(
    "text",
    [
        "print(x=1)",
        "open('/etc/passwd')",
        "__import__(name='os')",
        "_load_scenario(scenario={})",
        "cat(file_name=open('/etc/passwd'))",
        "cat(file_name=''.join(['a']))",
        "ls().__class__()",
        "cat(**{'file_name': 'a.txt'})",
        "cat(*['a.txt'])",
        "policy_x_1_a_b_GorillaFileSystem_instance.__init__()",
        "policy_x_1_a_b_GorillaFileSystem_instance._load_scenario(scenario={})",
        "policy_x_1_a_b_MathAPI_instance.cat('a.txt')",
        "[ls()]",
        "ls() or ls()",
        "(lambda: 1)()",
    ],
)
def test_only_documented_methods_with_literal_arguments_are_called(text: str) -> None:
    assert told(text).startswith("Error during execution: ")


@pytest.mark.parametrize(
    "text",
    [
        "power(base=10, exponent=1000000000)",
        "power(-3, 99999999999)",
        "logarithm(value=2, base=10, precision=100000000)",
        "logarithm(value='1e1000000000', base=10, precision=10)",
        "square_root(2, 999999999)",
        "round_number(number=5, decimal_places=-1000000000)",
    ],
)
def test_numbers_that_would_take_hours_are_refused(text: str) -> None:
    assert told(text) == (
        "Error during execution: a number of more than 10,000 digits is not computed"
    )


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("power(base=2, exponent=10)", '{"result": 1024}'),
        ("power(1, 99999999999)", '{"result": 1}'),
        ("power(base=1000000, exponent=-1)", '{"result": 1e-06}'),
        ("round_number(123456789.25, 1)", '{"result": 123456789.2}'),
        ("logarithm(value=1000000, base=10, precision=3)", "{'result': mpf('6.0')}"),
    ],
)
def test_other_numbers_are_computed(text: str, answer: str) -> None:
    assert told(text) == answer


def test_precision_is_left_as_it_was() -> None:
    before = mpmath.mp.prec
    told("logarithm(value=3, base=10, precision=50)")
    assert mpmath.mp.prec == before


def test_one_simulation_changes_no_other() -> None:
    one, other = Simulation(FILES, "policy"), Simulation(FILES, "policy")
    assert one.call("mv(source='a.txt', destination='b.txt')").startswith('{"result"')
    assert other.call("ls()") == '{"current_directory_content": ["a.txt"]}'
    assert not [name for name in vars(package) if "instance" in name]


def test_a_long_context_does_not_share_what_it_adds() -> None:
    (task, *_) = [task for task in some("multi_turn_long_context", 1)
                  if "TravelAPI" in task["involved_classes"]]  # fmt: skip
    one, other = (Simulation(task, "policy").instances["TravelAPI"] for _ in range(2))
    for card in one.credit_card_list.values():
        card["balance"] = -1
    assert all(card["balance"] != -1 for card in other.credit_card_list.values())


def test_calls_of_two_episodes_never_run_at_the_same_time() -> None:
    running: list[int] = []

    def add(**_: Any) -> str:
        running.append(1)
        time.sleep(0.02)
        seen = len(running)
        running.pop()
        return str(seen)

    simulations = [Simulation(FILES, "policy") for _ in range(4)]
    for simulation in simulations:
        simulation.instances["MathAPI"].add = add
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda one: one.call("add(a=1,b=2)"), simulations)) == {"1"}


def test_many_threads_see_what_one_alone_sees() -> None:
    tasks = some("multi_turn_long_context", 7)[:24]

    def play(task: dict[str, Any]) -> list[str]:
        simulation = Simulation(task, "policy")
        logs = [simulation.call(f"logarithm(value=7, base=3, precision={n})") for n in (5, 40)]
        return logs + [simulation.call(text) for turn in task["ground_truth"] for text in turn]

    alone = [play(task) for task in tasks]
    with ThreadPoolExecutor(32) as pool:
        assert list(pool.map(play, tasks * 4)) == alone * 4
