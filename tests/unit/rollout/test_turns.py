"""How turns are written and read: plain text with stop strings, and messages of a chat."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_trace.config import Thoughts
from megatron_trace.envs import Reply, StepResult, ToolEnvironment, tool
from megatron_trace.models.thoughts import NoThoughts
from megatron_trace.rollout.agent import Limits, sample_rollout
from megatron_trace.rollout.engine import Generation
from megatron_trace.rollout.episode import CallRules, Episode
from megatron_trace.rollout.turns import TextTurns, make_turns
from megatron_trace.rollout.types import RolloutRequest, SampledRollout
from tests.unit.models.tokenizers import make_codec

STOP = ("</search>", "</answer>")
CUT = {
    "a stop that ends a token": (["<answer> x ", "</answer>"], "<answer> x </answer>"),
    "a stop that ends inside a token": (["<answer> x </answer", ">.\n"], "<answer> x </answer>"),
    "a stop inside one token": (["x</answer> y"], "x</answer>"),
    "the first of two stops": (["x", "</answer></search>"], "x</answer>"),
    "no stop": (["x", "<|im_end|>"], "x<|im_end|>"),
    "a stop that did not end the turn": (
        ["</answer>", " y ", "</search>."],
        "</answer> y </search>",
    ),
    "a stop that ends in the last token but one": (["x</answer>", "."], "x</answer>."),
}


@pytest.mark.parametrize(("tokens", "expected"), CUT.values(), ids=CUT)
def test_an_action_ends_where_its_stop_string_ends(tokens: list[str], expected: str) -> None:
    class Numbered:
        def decode(self, ids: list[int]) -> str:
            return "".join(tokens[number] for number in ids)

        def token_id(self, text: str) -> int | None:
            return None

    turns = TextTurns(Numbered(), STOP)
    assert turns.action([], list(range(len(tokens)))) == expected


class Talk(ToolEnvironment):
    """One tool; the right answer is yes."""

    def start(self, task: Any) -> str:
        return "Is it?"

    def score(self, answer: str) -> float:
        return float(answer == "yes")

    @tool
    def look(self) -> str:
        """Look."""
        return "it <|im_end|> is"


CODEC = make_codec("qwen3")
STOP_ID = CODEC.token_id("<|im_end|>")
LOOK = '<tool_call>\n{"name": "look", "arguments": {}}\n</tool_call>'


@dataclass
class Engine:
    """Samples the given token ids, turn by turn, and keeps its prompts."""

    says: list[list[int]]
    prompts: list[list[int]] = field(default_factory=list)

    async def __call__(self, prompt_ids: list[int], *, max_tokens: int, seed: int) -> Generation:
        ids = self.says[len(self.prompts)]
        self.prompts.append(list(prompt_ids))
        return Generation(ids, [-0.5] * len(ids), [7] * len(ids), 0.5, False, 0)


class Patient(Talk):
    """Answers whatever it hears."""

    def step(self, action: Reply) -> StepResult:
        return StepResult("Go on.", done=False, reward=0.0, malformed=False)


def talk(
    *says: list[int], kind: type[Talk] = Talk, thoughts: Thoughts = Thoughts.keep
) -> tuple[SampledRollout, Engine]:
    turns = make_turns(CODEC, chat=True, stop=(), renderer="auto", thoughts=thoughts)
    episode = Episode(lambda: kind(kind.Options(), 9), CallRules(), "task")

    async def play() -> tuple[SampledRollout, Engine]:
        prompt, state = await episode.begin({"id": "0"}, turns.prompt_ids, 1_000)
        engine = Engine([list(ids) for ids in says])
        request = RolloutRequest("r", prompt, state)
        limits = Limits(max_turn_tokens=1_000, max_history_tokens=10_000)
        return await sample_rollout(request, episode, engine, turns, limits, run_seed=3), engine

    return asyncio.run(play())


@settings(deadline=None, max_examples=30)
@given(noise=st.lists(st.lists(st.integers(0, 255), max_size=9), min_size=1, max_size=4))
def test_a_chat_is_learned_from_the_very_tokens_that_were_sampled(noise: list[list[int]]) -> None:
    """The noise before each call is no text that a tokenizer would give back as it was."""
    call = CODEC.encode(LOOK)
    says = [*([*ids, *call, STOP_ID] for ids in noise), [*CODEC.encode("yes"), STOP_ID]]
    rollout, engine = talk(*says)
    assert [turn.action_ids for turn in rollout.turns] == says
    for turn, before, after in zip(rollout.turns, engine.prompts, engine.prompts[1:], strict=False):
        assert after == before + turn.action_ids + turn.observation_ids
        # The document in the tool's answer did not end the message.
        assert turn.observation_ids.count(STOP_ID) == 1
    assert rollout.turns[-1].terminal and rollout.turns[-1].reward == 1.0


@pytest.mark.parametrize("kind", [Talk, Patient])
def test_a_thought_without_an_end_ends_the_rollout_as_malformed(kind: type[Talk]) -> None:
    """Nothing can follow it, whatever the environment says."""
    rollout, _ = talk([*CODEC.encode("<think>hm"), STOP_ID], kind=kind)
    (turn,) = rollout.turns
    assert turn.terminal and turn.malformed and turn.reward == 0


@settings(deadline=None, max_examples=30)
@given(thoughts=st.lists(st.none() | st.lists(st.integers(0, 255), max_size=9), max_size=4))
def test_stripped_thoughts_are_in_no_later_prompt(thoughts: list[list[int] | None]) -> None:
    """The thoughts are no text that a tokenizer would give back as it was; None: none at all."""
    call, begin, end = CODEC.encode(LOOK), CODEC.encode("<think>"), CODEC.encode("</think>\n\n")
    says = [
        [*call, STOP_ID] if ids is None else [*begin, *ids, *end, *call, STOP_ID]
        for ids in thoughts
    ]
    last = [*begin, 65, *end, *CODEC.encode("yes"), STOP_ID]
    rollout, engine = talk(*says, last, thoughts=Thoughts.strip)
    assert [turn.action_ids for turn in rollout.turns] == [*says, last]
    without, _ = talk(*([*call, STOP_ID] for _ in says), last)
    prompt = engine.prompts[0]
    for turn, plain, given_ids in zip(
        rollout.turns, without.turns, [*engine.prompts[1:], None], strict=True
    ):
        # The history is the one of a policy that never thought aloud.
        prompt = plain.history_after(prompt)
        if given_ids is not None:
            assert given_ids == prompt
            assert (turn.new_history is not None) == (begin[0] in turn.action_ids)
    assert rollout.turns[-1].reward == 1.0


def test_a_long_thought_that_is_stripped_leaves_room_for_the_next_turn() -> None:
    call, begin, end = CODEC.encode(LOOK), CODEC.encode("<think>"), CODEC.encode("</think>\n\n")
    thinks = [*begin, *([65] * 9_990), *end, *call, STOP_ID]
    answers = [*CODEC.encode("yes"), STOP_ID]
    stripped, _ = talk(thinks, thinks, answers, thoughts=Thoughts.strip)
    assert stripped.turns[-1].reward == 1.0
    kept, _ = talk(thinks, thinks, answers)
    assert len(kept.turns) == 1 and kept.turns[-1].malformed


@pytest.mark.parametrize(
    ("family", "chat", "message"),
    [("llama3", True, "no tokens <think> and </think>"), ("qwen3", False, "only chats have")],
)
def test_thoughts_that_cannot_be_stripped_are_refused(
    family: str, chat: bool, message: str
) -> None:
    with pytest.raises(NoThoughts, match=message):
        make_turns(make_codec(family), chat, (), "auto", Thoughts.strip)
