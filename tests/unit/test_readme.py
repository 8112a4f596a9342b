"""The README's snippets are real: each runs from a file of its own, as the README says."""

import re
from pathlib import Path

import pytest

from megatron_trace.allocation import Allocator
from megatron_trace.config import AdvantageConfig, AllocationConfig, EnvironmentConfig
from megatron_trace.envs import Reply, StepResult, ToolCall, make_environments
from megatron_trace.learning import make_estimator
from megatron_trace.tree import ROOT
from tests.unit.allocation.outcomes import half, sample_step
from tests.unit.allocation.views import roots
from tests.unit.trees import chain

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture
def snippets(tmp_path: Path) -> Path:
    """A folder with every Python snippet, under the name that its first line gives."""
    found = re.findall(r"```python\n(# (\w+\.py)\n.*?)```", README.read_text(), re.DOTALL)
    for code, name in found:
        (tmp_path / name).write_text(code)
    return tmp_path


def test_the_strategy_gives_the_budget_to_the_tasks_nearest_to_one_half(snippets: Path) -> None:
    strategy = str(snippets / "frontier.py")
    allocator = Allocator(AllocationConfig(strategy=strategy, budget=16, group=8))
    assert allocator.candidates() == 8
    trees = roots(0.1, 0.45, 0.9, 0.8, 0.5, 0.3, 0.0, 1.0)
    _, plans = sample_step(allocator, trees, half)
    assert plans == [[{ROOT: 8} if index in (1, 4) else {} for index in range(8)]]


def test_the_estimator_prefers_the_shorter_of_two_successes(snippets: Path) -> None:
    settings = AdvantageConfig(
        name=str(snippets / "brevity.py"), options={"brevity": {"price": 0.1}}
    )
    tree = roots(0.5)[0]
    for length in (2, 4):
        tree.graft(ROOT, chain(10 * length, length, reward=1.0))
    advantages = make_estimator(settings)(tree)
    assert advantages == pytest.approx([0, 1, 1, -1, -1, -1, -1], abs=1e-4)


def guess(number: object) -> Reply:
    return Reply("", calls=(ToolCall("guess", {"number": number}, "call_0"),))


def test_the_environment_answers_guesses_and_forks(snippets: Path) -> None:
    settings = EnvironmentConfig(name=str(snippets / "guess.py"), max_turns=4)
    new_episode = make_environments(settings)
    first, second = new_episode(), new_episode()
    first.reset({"id": "a", "number": 42})
    assert told(first.step(guess(50))) == "lower"
    second.restore(first.snapshot())
    assert told(first.step(guess(42))) == "right"
    assert first.step(Reply("42")).reward == 1.0
    assert told(second.step(guess(25))) == "higher"
    assert second.step(Reply("30")).reward == 0.0


def test_a_guess_that_is_no_number_is_malformed(snippets: Path) -> None:
    episode = make_environments(EnvironmentConfig(name=str(snippets / "guess.py"), max_turns=3))()
    episode.reset({"id": "a", "number": 42})
    assert episode.step(guess("forty-two")).malformed


def told(result: StepResult) -> str:
    (message,) = result.observation
    return message["content"]  # type: ignore[index]
