"""What an episode scores, by BFCL's own checkers."""

from collections.abc import Mapping, Sequence
from typing import Any

from megatron_trace.envs.bfcl import package
from megatron_trace.envs.bfcl.simulation import Simulation
from megatron_trace.envs.bfcl.tasks import docs_at_first
from megatron_trace.models.messages import ToolCall

Answers = Sequence[Sequence[Sequence[str]]]
"""The calls of the policy's steps, for every turn of the user."""

TRUTH = f"{package.POLICY}_ground_truth"


def turns_right(task: Mapping[str, Any], answers: Answers) -> int:
    """The number of the user's turns, from the first one on, that BFCL's checker accepts.

    The checker makes the calls of policy and ground truth side by side. After every turn the state
    of the APIs must be the same, and what the ground truth's calls returned must be among what the
    policy's calls returned so far. A turn without ground truth is right whatever is called.

    Args:
        task: a task of a multi-turn category.
        answers: turns that are missing at the end count as turns without calls.
    """
    truth = task["ground_truth"]
    padded = [*answers, *([[]] * (len(truth) - len(answers)))]
    simulations = {name: Simulation(task, name) for name in (package.POLICY, TRUTH)}
    begun = 0

    def execute(func_call_list: Sequence[str], model_name: str, **_: Any) -> Any:
        nonlocal begun
        # The checker makes the calls of the ground truth once in every turn.
        begun += model_name == TRUTH
        simulation = simulations[model_name]
        return [simulation.call(text) for text in func_call_list], simulation.instances

    check = package.multi_turn_checker(execute)
    try:
        accepted = check(padded, truth, task, task["category"], package.POLICY)["valid"]
    # BFCL's comparison may fail, as with a folder that the policy has copied into itself.
    except (AttributeError, TypeError, RecursionError, AssertionError):
        accepted = False
    return len(truth) if accepted else begun - 1


def is_right(task: Mapping[str, Any], calls: Sequence[ToolCall]) -> bool:
    """Whether BFCL accepts the calls of a task of a single-turn category."""
    category = task["category"]
    if "relevance" in category:
        # Of no category but these does BFCL know no answer.
        return bool(calls) != ("irrelevance" in category)
    decoded = [{call.name: call.arguments} for call in calls]
    answers, language = task["ground_truth"], package.python_language()
    check = package.ast_checker()
    try:
        found = check(docs_at_first(task), decoded, answers, language, category, package.POLICY)
    # BFCL's comparison fails on values that are nested in other ways than the answer's.
    except (AttributeError, TypeError, KeyError, IndexError, RecursionError):
        return False
    return found["valid"]
