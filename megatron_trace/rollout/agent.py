"""The agent's loop over turns: token ids in, token ids out."""

import hashlib
import time
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from megatron_trace.rollout.engine import Generation
from megatron_trace.rollout.episode import Episode, Step
from megatron_trace.rollout.failures import EpisodeFailed
from megatron_trace.rollout.turns import Turns
from megatron_trace.rollout.types import RolloutRequest, SampledRollout
from megatron_trace.tree import Turn


class Generate(Protocol):
    """`Engine.generate`."""

    def __call__(
        self, prompt_ids: list[int], *, max_tokens: int, seed: int
    ) -> Awaitable[Generation]:
        """Sample after `prompt_ids` until a stop, at most `max_tokens` tokens."""
        ...


@dataclass(frozen=True)
class Limits:
    """Bounds of a rollout, in tokens.

    Attributes:
        max_turn_tokens: sampled tokens of one turn.
        max_history_tokens: all tokens of a rollout, prompt included.
    """

    max_turn_tokens: int
    max_history_tokens: int


def turn_seed(run_seed: int, name: str, turn: int) -> int:
    """Sampling seed, in [0, 2^63), of one turn of the rollout called `name`.

    It depends on the arguments alone. So a rollout that is repeated after a worker's death, or in a
    resumed run, is the same rollout.
    """
    digest = hashlib.sha256(f"{run_seed}/{name}/{turn}".encode()).digest()
    return int.from_bytes(digest[:8]) >> 1


async def sample_rollout(
    request: RolloutRequest,
    episode: Episode,
    generate: Generate,
    turns: Turns,
    limits: Limits,
    run_seed: int,
) -> SampledRollout:
    """Continue from the request's anchor until the episode ends.

    A turn ends the episode without success (terminal, malformed, reward 0) if it is cut off at its
    token limit, or if its observation leaves no room for another token, or if nothing can follow it
    (a chat's turn that ends within a thought). An error of the environment ends the rollout as
    failed: it then has `failure`, and no terminal turn.

    Raises:
        ValueError: the anchor's history leaves no room for a token.
    """
    history = list(request.history_ids)
    if len(history) >= limits.max_history_tokens:
        raise ValueError(
            f"{request.name}: a history of {len(history)} tokens leaves no room within "
            f"max_history_tokens = {limits.max_history_tokens}"
        )
    rollout = SampledRollout(turns=[], anchor_prediction=0.0, cached_tokens=0, prompt_tokens=0)
    state, terminal = request.state, False
    while not terminal:
        room = limits.max_history_tokens - len(history)
        asked = time.perf_counter()
        generation = await generate(
            history,
            max_tokens=min(limits.max_turn_tokens, room),
            seed=turn_seed(run_seed, request.name, len(rollout.turns)),
        )
        sampled_at = time.perf_counter()
        rollout.engine_s += sampled_at - asked
        _account(rollout, generation, prompt_tokens=len(history))
        turn = _unfinished_turn(generation)
        if not generation.truncated:
            sampled = generation.token_ids
            try:
                step = await episode.step(
                    state,
                    turns.action(history, sampled),
                    partial(turns.following, history, sampled, enough=room),
                )
            except EpisodeFailed as error:
                rollout.failure = error.failure
                return rollout
            rollout.environment_s += time.perf_counter() - sampled_at
            turn = _answered(turn, step, history, limits.max_history_tokens)
            state = turn.state or {}
        rollout.turns.append(turn)
        history = turn.history_after(history)
        terminal = turn.terminal
    return rollout


def _account(rollout: SampledRollout, generation: Generation, prompt_tokens: int) -> None:
    """Note what a call of the engine says about the history before it."""
    rollout.prompt_tokens += prompt_tokens
    rollout.cached_tokens += generation.cached_tokens
    # The prediction belongs to the end of that history: the turn before, or the anchor.
    if rollout.turns:
        rollout.turns[-1].prediction = generation.prediction
    else:
        rollout.anchor_prediction = generation.prediction


def _unfinished_turn(generation: Generation) -> Turn:
    """The sampled action as a turn that ends the episode; `_answered` says otherwise."""
    return Turn(
        parent=-1,
        action_ids=generation.token_ids,
        logprobs=generation.logprobs,
        versions=generation.versions,
        observation_ids=[],
        terminal=True,
        malformed=True,
        entropies=generation.entropies,
    )


def _answered(turn: Turn, step: Step, history: list[int], longest: int) -> Turn:
    """The turn, sampled after `history`, with what its action brought."""
    result = step.result
    turn = replace(turn, tool_errors=result.tool_errors)
    if result.done:
        return replace(
            turn, reward=result.reward, malformed=result.malformed, parts=dict(result.parts)
        )
    if step.following is None:
        return turn
    goes_on = replace(
        turn,
        terminal=False,
        malformed=result.malformed,
        observation_ids=step.following.observation_ids,
        new_history=step.following.new_history,
        state=step.snapshot,
    )
    # Equal would fill the history to its limit, with no token left for the next action.
    return goes_on if len(goes_on.history_after(history)) < longest else turn
