"""Actions drawn at random, by which an environment's contract is tested."""

import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from megatron_trace.envs.environment import Environment
from megatron_trace.models.messages import Reply, Tool, ToolCall

MALFORMED_SHARE = 0.15
"""Share of the calls that are malformed on purpose: a policy makes such calls too."""


def random_action(episode: Environment, task: Mapping[str, Any], rng: random.Random) -> Any:
    """An action for the next turn: calls of tools, or words of the task before a stop string."""
    words = words_of(task)
    if episode.chat:
        calls = [
            _call(rng, number, episode.tools, words) for number in range(rng.choice((1, 1, 2)))
        ]
        return Reply("", calls=tuple(calls))
    said = " ".join(rng.choices(words, k=rng.randint(1, 5)))
    stop = rng.choice(episode.stop) if episode.stop else ""
    # Most stop strings are the ends of tags.
    opening = f"<{stop[2:]}" if re.fullmatch(r"</\w+>", stop) else ""
    return f"{opening} {said} {stop}"


def words_of(value: Any) -> list[str]:
    """All words of a task's texts and numbers; at least one."""
    return re.findall(r"[^\W_]+", str(value)) or ["x"]


def _call(rng: random.Random, number: int, tools: Sequence[Tool], words: Sequence[str]) -> ToolCall:
    id = f"call_{number}"
    if not tools or rng.random() < MALFORMED_SHARE:
        return ToolCall("no_such_tool", {}, id, rng.choice(("", "its body is no JSON object")))
    function = rng.choice(tools)["function"]
    return ToolCall(function["name"], _value(rng, function["parameters"], words), id)


def _value(rng: random.Random, schema: Mapping[str, Any], words: Sequence[str]) -> Any:
    """A value that keeps a JSON schema, of the kinds that functions' type hints give."""
    if "enum" in schema:
        return rng.choice(schema["enum"])
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = rng.choice(kind)
    if kind == "object":
        properties = schema.get("properties", {})
        required = schema.get("required", [])
        chosen = [name for name in properties if name in required or rng.random() < 0.5]
        return {name: _value(rng, properties[name], words) for name in chosen}
    if kind == "array":
        return [_value(rng, schema.get("items", {}), words) for _ in range(rng.randint(0, 3))]
    if kind in ("integer", "number"):
        return rng.randint(-3, 30)
    if kind == "boolean":
        return rng.random() < 0.5
    return None if kind == "null" else " ".join(rng.choices(words, k=rng.randint(1, 3)))
