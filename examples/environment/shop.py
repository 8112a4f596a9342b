"""A shop with two tools: the policy looks up prices, calculates, and answers with the total.

A task is `{"question": "What do 3 pens and 2 cups cost?", "prices": {"pen": 4, "cup": 7},
"answer": 26}`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from megatron_trace.config import setting
from megatron_trace.envs import ToolEnvironment, tool


class Shop(ToolEnvironment):
    """One question. A turn calls tools; a turn without a call is the answer."""

    @dataclass
    class Options(ToolEnvironment.Options):
        """Set as `environment.options.shop.most_lookups=3`."""

        most_lookups: int = setting(8, "prices that the shop tells in an episode", at_least=1)

    def start(self, task: Mapping[str, Any]) -> str:
        """The user's first words. What changes in an episode is kept in `self.state`."""
        self.state["lookups"] = 0
        return f"{task['question']} Answer with the number alone."

    def score(self, answer: str) -> float:
        """1 for the right total."""
        return float(answer.strip() == str(self.task["answer"]))

    @tool
    def price(self, item: str) -> int:
        """Look up the price of one piece of an item.

        Args:
            item: the item's name, in the singular.
        """
        self.state["lookups"] += 1
        if self.state["lookups"] > self.options.most_lookups:
            raise ValueError("the shop has closed")
        # What a tool raises is told to the policy, which may try something else.
        return self.task["prices"][item]

    @tool
    def multiply_and_add(self, terms: list[list[int]]) -> int:
        """Multiply the two numbers of each term and add the products.

        Args:
            terms: pairs of numbers, such as [[3, 4], [2, 7]].
        """
        return sum(first * second for first, second in terms)
