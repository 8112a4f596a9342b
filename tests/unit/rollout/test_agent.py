"""The agent's loop with an engine and an environment of a few lines."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pytest

from megatron_trace.envs import Environment, StepResult
from megatron_trace.rollout.agent import Limits, sample_rollout, turn_seed
from megatron_trace.rollout.engine import Generation
from megatron_trace.rollout.episode import CallRules, Episode
from megatron_trace.rollout.turns import TextTurns
from megatron_trace.rollout.types import RolloutRequest, SampledRollout


class Letters:
    """A codec in which every character is a token."""

    def encode(self, text: str, enough: int | None = None) -> list[int]:
        return [ord(char) for char in text[:enough]]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))

    def token_id(self, text: str) -> int | None:
        return None


CODEC = Letters()
TURNS = TextTurns(CODEC, [";"])
LIMITS = Limits(max_turn_tokens=8, max_history_tokens=40)


class Counter(Environment):
    """Counts to its goal; the observation is the count so far."""

    def __init__(self) -> None:
        self.count = -1

    def reset(self, task: Mapping[str, Any]) -> list[dict[str, str]]:
        raise NotImplementedError

    def step(self, action: str) -> StepResult:
        self.count += len(action)
        done = self.count >= 6
        seen = "" if done else f"<{self.count}>"
        return StepResult(seen, done, float(done), malformed=False, tool_errors=self.count)

    def snapshot(self) -> dict[str, Any]:
        return {"count": self.count}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        self.count = snapshot["count"]


class Engine:
    """Says `says`, turn by turn, and keeps what it was asked."""

    def __init__(self, *says: str, truncated: bool = False) -> None:
        self.says = list(says)
        self.truncated = truncated
        self.prompts: list[list[int]] = []
        self.limits: list[int] = []
        self.seeds: list[int] = []

    async def __call__(self, prompt_ids: list[int], *, max_tokens: int, seed: int) -> Generation:
        said = self.says[len(self.prompts)]
        self.prompts.append(list(prompt_ids))
        self.limits.append(max_tokens)
        self.seeds.append(seed)
        ids = CODEC.encode(said)
        prediction = len(self.prompts) / 10
        entropies = [float(token) for token in ids]
        return Generation(
            ids, [-0.5] * len(ids), [7] * len(ids), prediction, self.truncated, 2, entropies
        )


def sample(
    engine: Engine, *, history: str = "ask", count: int = 0, limits: Limits = LIMITS
) -> SampledRollout:
    request = RolloutRequest("r", CODEC.encode(history), {"count": count})
    episode = Episode(Counter, CallRules(), "task")
    return asyncio.run(sample_rollout(request, episode, engine, TURNS, limits, run_seed=3))


def test_each_turn_continues_from_the_very_ids_before_it() -> None:
    engine = Engine("ab;", "c;", "d;")
    rollout = sample(engine)
    assert [CODEC.decode(prompt) for prompt in engine.prompts] == [
        "ask",
        "askab;<3>",
        "askab;<3>c;<5>",
    ]
    assert [CODEC.decode(turn.action_ids) for turn in rollout.turns] == ["ab;", "c;", "d;"]
    assert [CODEC.decode(turn.observation_ids) for turn in rollout.turns] == ["<3>", "<5>", ""]
    assert [turn.tool_errors for turn in rollout.turns] == [3, 5, 7]
    assert rollout.prompt_tokens == 3 + 9 + 14 and rollout.cached_tokens == 6


def test_a_prediction_belongs_to_the_history_before_its_turn() -> None:
    rollout = sample(Engine("ab;", "c;", "d;"))
    assert rollout.anchor_prediction == 0.1
    assert [turn.prediction for turn in rollout.turns] == [0.2, 0.3, None]


def test_entropies_belong_to_the_tokens_of_their_turn() -> None:
    rollout = sample(Engine("ab;", "c;", "d;"))
    assert [turn.entropies for turn in rollout.turns] == [turn.action_ids for turn in rollout.turns]


def test_the_episode_starts_from_the_snapshot_and_leaves_one_after_every_turn() -> None:
    rollout = sample(Engine("a;", "b;"), count=3)
    assert [turn.state for turn in rollout.turns] == [{"count": 5}, None]
    assert [(turn.terminal, turn.reward, turn.malformed) for turn in rollout.turns] == [
        (False, 0.0, False),
        (True, 1.0, False),
    ]


def test_a_turn_cut_off_at_its_limit_ends_the_episode_as_malformed() -> None:
    (turn,) = sample(Engine("abcdefgh", truncated=True)).turns
    assert turn.terminal and turn.malformed and turn.reward == 0.0 and turn.state is None


@pytest.mark.parametrize(("limit", "terminal"), [(10, False), (9, True)])
def test_an_observation_that_leaves_no_room_ends_the_episode(limit: int, terminal: bool) -> None:
    engine = Engine("ab;", "cdef;")
    first = sample(engine, limits=Limits(8, limit)).turns[0]
    assert first.terminal is terminal and first.malformed is terminal
    assert first.observation_ids == ([] if terminal else CODEC.encode("<3>"))
    assert first.state == (None if terminal else {"count": 3})


def test_of_an_observation_no_more_is_tokenized_than_tells_that_it_has_no_room() -> None:
    asked: list[int | None] = []

    class Asked(Letters):
        def encode(self, text: str, enough: int | None = None) -> list[int]:
            asked.append(enough)
            return super().encode(text, enough)

    episode = Episode(Counter, CallRules(), "task")
    request = RolloutRequest("r", CODEC.encode("ask"), {"count": 0})
    turns, limits = TextTurns(Asked(), [";"]), Limits(max_turn_tokens=8, max_history_tokens=20)
    engine = Engine("ab;", "c;", "d;")
    asyncio.run(sample_rollout(request, episode, engine, turns, limits, run_seed=3))
    # 20 - 3 of the prompt; then - 3 of "ab;" and 3 of "<3>".
    assert asked == [17, 11]


def test_a_turn_may_not_outgrow_the_history() -> None:
    engine = Engine("ab;", "c;", "d;")
    sample(engine, limits=Limits(8, 15))
    assert engine.limits == [8, 6, 1]


def test_a_history_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="r: a history of 40 tokens"):
        sample(Engine(), history="x" * 40)


def test_seeds_depend_on_run_name_and_turn_and_on_nothing_else() -> None:
    first, again = Engine("ab;", "c;", "d;"), Engine("ab;", "c;", "d;")
    sample(first)
    sample(again)
    assert first.seeds == again.seeds == [turn_seed(3, "r", turn) for turn in range(3)]
    names = [
        (run, name, turn) for run in range(3) for name in ("a", "b", "a/1") for turn in range(3)
    ]
    seeds = {turn_seed(*name) for name in names}
    assert len(seeds) == len(names) and all(0 <= seed < 2**63 for seed in seeds)
    assert turn_seed(0, "step 1", 0) == 1988400851052415684


class Listener(Counter):
    """Keeps the actions that it is given."""

    heard: ClassVar[list[str]] = []

    def step(self, action: str) -> StepResult:
        self.heard.append(action)
        return super().step(action)


def test_the_environment_hears_no_more_than_the_history_keeps_every_sampled_token() -> None:
    class Wide(Letters):
        """Token 1 is ";."."""

        def decode(self, ids: Sequence[int]) -> str:
            return super().decode(ids).replace("\x01", ";.")

    turns = TextTurns(Wide(), [";"])
    episode = Episode(Listener, CallRules(), "task")
    request = RolloutRequest("r", CODEC.encode("ask"), {"count": 0})
    engine = Engine("ab\x01", "cdef\x01")
    limits = Limits(max_turn_tokens=8, max_history_tokens=40)
    rollout = asyncio.run(sample_rollout(request, episode, engine, turns, limits, run_seed=3))
    assert Listener.heard == ["ab;", "cdef;"]
    assert [CODEC.decode(turn.action_ids) for turn in rollout.turns] == ["ab\x01", "cdef\x01"]
    assert CODEC.decode(engine.prompts[1]) == "askab\x01<3>"


class Broken(Counter):
    """Its tool fails in the second step."""

    def step(self, action: str) -> StepResult:
        if self.count:
            raise TimeoutError("the tool did not answer")
        return super().step(action)


def test_an_error_of_the_environment_ends_the_rollout_as_failed() -> None:
    request = RolloutRequest("r", CODEC.encode("ask"), {"count": 0}, "geo-7")
    episode = Episode(Broken, CallRules("broken"), "geo-7")
    engine = Engine("ab;", "c;")
    rollout = asyncio.run(sample_rollout(request, episode, engine, TURNS, LIMITS, run_seed=3))
    assert rollout.failure is not None
    assert rollout.failure.text.startswith(
        "environment broken, task geo-7: step raised TimeoutError: the tool did not answer"
    )
    assert not any(turn.terminal for turn in rollout.turns)
