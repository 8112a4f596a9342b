"""`Simulation`: the simulated APIs of one episode, and the calls that change them."""

import decimal
import json
import re
from collections.abc import Mapping
from threading import Lock
from typing import Any

import mpmath

from megatron_trace.envs.bfcl import package
from megatron_trace.envs.bfcl.calls import parsed
from megatron_trace.envs.bfcl.sizes import check_size
from megatron_trace.envs.bfcl.tasks import initial_config

_one_at_a_time = Lock()
"""Some APIs keep what they return in a global of their module, or set mpmath's global precision. A
call takes less than a millisecond."""


class Simulation:
    """Instances of a task's APIs, which belong to this object alone.

    Attributes:
        instances: name of an API -> its instance.
    """

    def __init__(self, task: Mapping[str, Any], owner: str) -> None:
        """Instances in the state in which the task begins.

        Args:
            task: `id`, `category`, `involved_classes` and `initial_config`.
            owner: a part of the instances' names, as a model's is in BFCL.
        """
        long_context = "long_context" in task["category"]
        self.instances: dict[str, Any] = {}
        self._names: dict[str, str] = {}
        # A method of two APIs belongs to the last one, as in BFCL.
        self._owners: dict[str, str] = {}
        config = initial_config(task)
        for api in task["involved_classes"]:
            name = re.sub(r"\W", "_", f"{owner}_{task['id']}_{api}_instance")
            self.instances[api] = package.new_api(api, config, long_context)
            self._names[name] = api
            self._owners |= {doc["name"]: name for doc in package.docs_of(api)}

    def call(self, text: str) -> str:
        """Make a call, and return what BFCL tells the policy of it.

        Only methods that the APIs' docs name are called, and nothing of the text is evaluated.

        Args:
            text: such as `cd(folder='x')`.
        """
        try:
            return self._called(text)
        # Whatever the API raises, or the text makes the parser raise, is the policy's to read.
        except Exception as error:
            return f"Error during execution: {error}"

    def _called(self, text: str) -> str:
        owner, method, positional, named = parsed(package.with_owners(text, self._owners))
        if self._owners.get(method) != owner:
            raise NameError(f"name '{owner}' is not defined")
        check_size(method, positional, named)
        function = getattr(self.instances[self._names[owner]], method)
        with _one_at_a_time, mpmath.workprec(mpmath.mp.prec), decimal.localcontext():
            # As text at once, while mpmath's precision is that of the call.
            return _as_text(function(*positional, **named))


def _as_text(result: Any) -> str:
    """A result as `execute_multi_turn_func_call` gives it."""
    if isinstance(result, str):
        return result
    if isinstance(result, dict):
        try:
            return json.dumps(result)
        except (TypeError, ValueError):
            return str(result)
    return str(result)
