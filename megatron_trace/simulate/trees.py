"""A simulated world: the decision trees of all its tasks, as arrays.

A task's histories are the nodes of a full tree: node 0 is its prompt, and action a at node n leads
to node `actions`·n + 1 + a.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megatron_trace.simulate.config import WorldConfig

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class World:
    """All decision trees. `inner` nodes may have actions: all nodes but those of the deepest level.

    Attributes:
        terminal: the episode has ended, [tasks, nodes].
        reward: terminal reward, [tasks, nodes]; 0 where not terminal.
        logits: log-probability of each action under the start policy, [tasks, inner, actions].
        sign: +1 or -1 for each action: whether more of the node's skill makes the action more or
            less likely, [tasks, inner, actions].
        skill: the parameter that the node's actions depend on, [tasks, inner].
        action_tokens: of the action that led to a node, [tasks, nodes].
        observation_tokens: of the observation that came with it, [tasks, nodes].
        embedding: of each prompt, [tasks, 8].
    """

    config: WorldConfig
    terminal: NDArray[np.bool_]
    reward: Floats
    logits: Floats
    sign: NDArray[np.int8]
    skill: NDArray[np.int32]
    action_tokens: NDArray[np.int64]
    observation_tokens: NDArray[np.int64]
    embedding: Floats

    @property
    def parameters(self) -> int:
        """Length of the policy's parameter vector θ: `skills` for each band and depth."""
        return self.config.bands * self.config.depth * self.config.skills

    @property
    def band(self) -> NDArray[np.int32]:
        """Of each task, [tasks]."""
        return self.skill[:, 0] // (self.config.depth * self.config.skills)

    def tasks(self) -> list[dict[str, Any]]:
        """The tasks, in the form in which training reads them from its data."""
        return [{"id": f"task {index}", "index": index} for index in range(self.config.tasks)]


def level(config: WorldConfig, depth: int) -> slice:
    """The nodes at `depth` turns from the root."""
    first = sum(config.actions**above for above in range(depth))
    return slice(first, first + config.actions**depth)
