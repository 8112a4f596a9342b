"""What goes into the fleet and what comes out: plain data."""

from dataclasses import dataclass
from typing import Any

from megatron_trace.rollout.failures import Failure
from megatron_trace.tree import Turn


@dataclass(frozen=True)
class RolloutRequest:
    """One rollout to sample from an anchor.

    Attributes:
        name: unique name. The rollout's randomness is derived from it and from the run's seed.
        history_ids: token ids of the anchor's history.
        state: environment snapshot at the anchor.
        tree: name of the tree it belongs to. A tree's rollouts go to the same worker, whose prefix
            cache knows its histories.
    """

    name: str
    history_ids: list[int]
    state: dict[str, Any]
    tree: str = ""


@dataclass
class ScoredRoot:
    """The beginning of an episode.

    Attributes:
        prompt_ids: token ids of the prompt.
        prediction: its predicted success probability.
        state: environment snapshot after the reset.
        embedding: mean of the policy's input embeddings over the prompt's tokens; None unless
            needed.
    """

    prompt_ids: list[int]
    prediction: float
    state: dict[str, Any]
    embedding: list[float] | None = None


@dataclass
class SampledRollout:
    """A chain of turns from an anchor to a terminal turn, with what the engine reported.

    Attributes:
        turns: the chain; `parent` and `rollout` are set when it is grafted onto a tree.
        anchor_prediction: predicted success probability of the anchor's history.
        cached_tokens: prompt tokens, over all turns, that the prefix cache served.
        prompt_tokens: prompt tokens over all turns.
        engine_s, environment_s: seconds in which it waited for the engine, and for the environment
            with its place among the calls that run at a time.
        failure: the environment's error that ended the rollout before its terminal turn.
    """

    turns: list[Turn]
    anchor_prediction: float
    cached_tokens: int
    prompt_tokens: int
    failure: Failure | None = None
    engine_s: float = 0.0
    environment_s: float = 0.0
