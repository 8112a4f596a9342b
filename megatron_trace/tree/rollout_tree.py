"""`RolloutTree`: all turns sampled for one task, and the histories they end in."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

ROOT = 0
"""Index of the root in `RolloutTree.turns`."""

Anchor = int
"""A history that can be continued, named by the index of the turn it ends with (`ROOT` for the
prompt).
"""

Stage = Literal["bare", "continuation"]


class Requires(Enum):
    """What a sampler may be asked for beyond log-probabilities and predictions.

    Each is named by the field that holds it, of a `Turn` or of a `RolloutTree`.
    """

    entropies = "entropies"
    embedding = "embedding"


@dataclass
class Turn:
    """One turn: the sampled action, and the observation that followed.

    The root is the turn without an action, whose observation is the prompt. `action_ids`,
    `logprobs` and `versions` have one entry for each sampled token.

    Attributes:
        parent: index of the turn before it in the tree; -1 for the root.
        action_ids: sampled token ids, stop included.
        logprobs: log-probability of each sampled token, from the engine that sampled it.
        versions: policy version of each sampled token.
        observation_ids: token ids that the environment appended; empty on a terminal turn.
        new_history: the whole history after the turn, where it is no extension of the one before
            (`environment.thoughts = strip`); None: it is.
        prediction: predicted success probability of the history that ends here; None on terminal
            turns, and before anything was sampled after the turn.
        terminal: the episode ended with this turn.
        reward: terminal reward in [0, 1]; 0 on turns that are not terminal.
        malformed: the environment could not parse the action, or a limit cut the episode off.
        rollout: index into `RolloutTree.rollouts` of the rollout that added it; -1 for the root.
        state: the environment's snapshot after the turn; None on terminal turns.
        parts: what the environment says the reward is made of, by name; on terminal turns.
        tool_errors: calls of tools in the turn that raised or took too long.
        entropies: entropy, in nats, of the distribution that each token was sampled from; empty
            unless asked for.
    """

    parent: int
    action_ids: list[int]
    logprobs: list[float]
    versions: list[int]
    observation_ids: list[int]
    prediction: float | None = None
    terminal: bool = False
    reward: float = 0.0
    malformed: bool = False
    rollout: int = -1
    state: dict[str, Any] | None = None
    entropies: list[float] = field(default_factory=list)
    parts: dict[str, float] = field(default_factory=dict)
    new_history: list[int] | None = None
    tool_errors: int = 0

    def history_after(self, history: Sequence[int]) -> list[int]:
        """Token ids after the turn, which was sampled after `history`."""
        if self.new_history is not None:
            return list(self.new_history)
        return [*history, *self.action_ids, *self.observation_ids]


@dataclass
class Rollout:
    """A sampled rollout: its anchor. Its turns name it by its index in `RolloutTree.rollouts`."""

    anchor: Anchor

    @property
    def stage(self) -> Stage:
        """Bare rollouts begin at the root."""
        return "bare" if self.anchor == ROOT else "continuation"


@dataclass
class RolloutTree:
    """A task and every turn sampled for it; parents come before their children in `turns`.

    Attributes:
        embedding: of the prompt; None unless asked for.
        belief: successes and failures, α and β, that were believed of the task before the step
            (`allocation/belief.py`); None: no allocator planned the tree.
    """

    task: dict[str, Any]
    turns: list[Turn]
    rollouts: list[Rollout] = field(default_factory=list)
    embedding: list[float] | None = None
    belief: tuple[float, float] | None = None

    @classmethod
    def from_prompt(
        cls,
        task: dict[str, Any],
        prompt_ids: Sequence[int],
        *,
        prediction: float | None,
        state: dict[str, Any],
        embedding: list[float] | None = None,
    ) -> "RolloutTree":
        """A tree of only its root."""
        root = Turn(-1, [], [], [], list(prompt_ids), prediction=prediction, state=state)
        return cls(task=task, turns=[root], embedding=embedding)

    def path(self, turn: int) -> list[int]:
        """Indices from the root to `turn`, both included."""
        path = []
        while turn >= 0:
            path.append(turn)
            turn = self.turns[turn].parent
        return path[::-1]

    def history_ids(self, anchor: Anchor) -> list[int]:
        """All token ids up to the end of `anchor`: the very ids that were sampled and observed."""
        history: list[int] = []
        for index in self.path(anchor):
            history = self.turns[index].history_after(history)
        return history

    def children(self) -> list[list[int]]:
        """For each turn the indices of the turns that follow it."""
        children: list[list[int]] = [[] for _ in self.turns]
        for index, turn in enumerate(self.turns[1:], start=1):
            children[turn.parent].append(index)
        return children

    def leaves(self) -> list[int]:
        """Indices of the terminal turns, one per rollout."""
        return [index for index, turn in enumerate(self.turns) if turn.terminal]

    def prefixes(self, *, of_continuations: bool = False) -> list[Anchor]:
        """The anchors that may be expanded: non-terminal turns but the root.

        Args:
            of_continuations: turns of continuations too, and not only of bare rollouts.
        """
        prefixes = []
        for index, turn in enumerate(self.turns):
            if index == ROOT or turn.terminal:
                continue
            if of_continuations or self.rollouts[turn.rollout].stage == "bare":
                prefixes.append(index)
        return prefixes

    def graft(self, anchor: Anchor, turns: Sequence[Turn]) -> None:
        """Append one sampled rollout, a chain of turns that ends in a terminal one, below `anchor`.

        Raises:
            ValueError: the chain is empty or does not end in its only terminal turn, or `anchor` is
                terminal.
        """
        if [turn.terminal for turn in turns] != [False] * (len(turns) - 1) + [True]:
            raise ValueError(
                "a rollout is a chain of turns of which the last, and only the last, is terminal"
            )
        if self.turns[anchor].terminal:
            raise ValueError(f"turn {anchor} is terminal and cannot be continued")
        # Appended in the order of the chain: the backup relies on parents before their children.
        self.rollouts.append(Rollout(anchor))
        parent = anchor
        for turn in turns:
            turn.parent, turn.rollout = parent, len(self.rollouts) - 1
            self.turns.append(turn)
            parent = len(self.turns) - 1
