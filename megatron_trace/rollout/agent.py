"""The agent's loop over turns: token ids in, token ids out. What was sampled is never tokenized again."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from megatron_trace.envs.environment import Environment, StepResult
from megatron_trace.rollout.engine import Generation
from megatron_trace.rollout.types import RolloutRequest, SampledRollout
from megatron_trace.tree import Turn


class Generate(Protocol):
    """The engine: sample after `prompt_ids` until a stop, at most `max_tokens` tokens."""

    def __call__(
        self, prompt_ids: list[int], *, max_tokens: int, seed: int
    ) -> Awaitable[Generation]:
        """Start sampling."""
        ...


@dataclass(frozen=True)
class Codec:
    """Text to token ids (no special tokens added) and back (none dropped)."""

    encode: Callable[[str], list[int]]
    decode: Callable[[list[int]], str]


@dataclass(frozen=True)
class Limits:
    """Most sampled tokens of a turn, and most tokens of a whole rollout, prompt included."""

    max_turn_tokens: int
    max_history_tokens: int


def turn_seed(run_seed: int, name: str, turn: int) -> int:
    """Sampling seed, in [0, 2^63), of one turn of the rollout called `name`; a function of its arguments alone."""
    digest = hashlib.sha256(f"{run_seed}/{name}/{turn}".encode()).digest()
    return int.from_bytes(digest[:8]) >> 1


async def sample_rollout(
    request: RolloutRequest,
    environment: Environment,
    generate: Generate,
    codec: Codec,
    limits: Limits,
    run_seed: int,
) -> SampledRollout:
    """Continue from the request's anchor until the episode ends.

    A turn that is cut off at its token limit, or whose observation leaves no room for another token, ends the
    episode: terminal, malformed, reward 0.

    Raises:
        ValueError: the anchor's history leaves no room for a token.
    """
    history = list(request.history_ids)
    if len(history) >= limits.max_history_tokens:
        raise ValueError(
            f"{request.name}: a history of {len(history)} tokens leaves no room within max_history_tokens = "
            f"{limits.max_history_tokens}"
        )
    rollout = SampledRollout(turns=[], anchor_prediction=0.0, cached_tokens=0, prompt_tokens=0)
    state: Mapping[str, Any] | None = request.state
    while not (rollout.turns and rollout.turns[-1].terminal):
        generation = await generate(
            history,
            max_tokens=min(limits.max_turn_tokens, limits.max_history_tokens - len(history)),
            seed=turn_seed(run_seed, request.name, len(rollout.turns)),
        )
        rollout.prompt_tokens += len(history)
        rollout.cached_tokens += generation.cached_tokens
        if rollout.turns:
            rollout.turns[-1].prediction = generation.prediction
        else:
            rollout.anchor_prediction = generation.prediction
        turn = Turn(
            -1,
            generation.token_ids,
            generation.logprobs,
            generation.versions,
            [],
            terminal=True,
            malformed=True,
            entropies=generation.entropies,
        )
        if not generation.truncated:
            action = codec.decode(generation.token_ids)
            result, snapshot = await asyncio.to_thread(_step, environment, state, action)
            state = None  # from here on the environment itself holds the state
            _apply(turn, result, snapshot, codec, room=limits.max_history_tokens - len(history))
        rollout.turns.append(turn)
        history = [*history, *turn.action_ids, *turn.observation_ids]
    return rollout


def _step(
    environment: Environment, state: Mapping[str, Any] | None, action: str
) -> tuple[StepResult, dict[str, Any] | None]:
    """Restore `state` where given, act, and take a snapshot unless the episode is over."""
    if state is not None:
        environment.restore(state)
    result = environment.step(action)
    return result, None if result.done else environment.snapshot()


def _apply(
    turn: Turn, result: StepResult, snapshot: dict[str, Any] | None, codec: Codec, room: int
) -> None:
    """Write an action's result into its turn; `room` is what the history may still grow by, the action included."""
    if result.done:
        turn.reward, turn.malformed = result.reward, result.malformed
        return
    observation_ids = codec.encode(result.observation)
    if len(turn.action_ids) + len(observation_ids) < room:
        turn.terminal, turn.malformed = False, result.malformed
        turn.observation_ids, turn.state = observation_ids, snapshot
