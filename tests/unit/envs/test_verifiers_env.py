"""Environments of verifiers, built of its classes, as chats that are continued by replies."""

import asyncio
import gc
import signal
import sys
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from megatron_trace.config import EnvironmentConfig
from megatron_trace.envs import Reply, ToolCall, check, make_environments
from megatron_trace.envs.contract import check_contract
from megatron_trace.envs.results import BadResult, checked_result

vf = pytest.importorskip("verifiers")
datasets = pytest.importorskip("datasets")

ROWS = [{"question": "What is 2 + 3?", "answer": "5"}, {"question": "And 3 + 4?", "answer": "7"}]


def right(completion: Any, answer: str, parser: Any) -> float:
    return float(parser.parse_answer(completion) == answer)


def brief(completion: Any) -> float:
    return float(len(completion[-1]["content"]) < 9)


def data() -> Any:
    return datasets.Dataset.from_list(ROWS)


def rubric() -> Any:
    return vf.Rubric(funcs=[right, brief], weights=[0.75, 0.25])


def single(**options: Any) -> Any:
    given = {"rubric": rubric(), "system_prompt": "Answer.", **options}
    return vf.SingleTurnEnv(dataset=data(), **given)


class Hint(vf.MultiTurnEnv):
    """Tells whether an answer is too high, until it is right; `odd` is what it does instead."""

    def __init__(self, odd: Any = None, **options: Any) -> None:
        super().__init__(dataset=data(), rubric=rubric(), **options)
        self.odd, self.cleaned = odd, 0

    async def setup_state(self, state: Any) -> Any:
        state["hints"] = 0
        if self.odd == "setup":
            raise vf.Error("no room")
        return state

    async def env_response(self, messages: Any, state: Any, **_: Any) -> Any:
        state["hints"] += 1
        if callable(self.odd):
            return await self.odd(self, messages, state)
        high = int(messages[-1].content or 0) > int(state["answer"])
        return [vf.UserMessage(content=f"{state['hints']}: {'lower' if high else 'higher'}")]

    @vf.stop
    async def found(self, state: Any) -> bool:
        said = [step["completion"][-1].content for step in state["trajectory"]]
        return bool(said) and said[-1] == state["answer"]

    @vf.cleanup
    async def clean(self, state: Any) -> None:
        self.cleaned += 1


def add(a: int, b: int) -> str:
    """Add two numbers.

    Args:
        a: the first.
        b: the second.
    """
    return str(a + b)


def tool_environment() -> Any:
    return vf.ToolEnv(tools=[add], dataset=data(), rubric=rubric())


@pytest.fixture
def maker(monkeypatch: Any) -> Any:
    """Makes the maker of episodes of an environment that `load_environment` returns."""

    def make(load: Any, max_turns: int = 9, **options: Any) -> Any:
        monkeypatch.setitem(sys.modules, "probe", SimpleNamespace(load_environment=load))
        given = {"verifiers_env": {"id": "probe", **options}}
        return make_environments(EnvironmentConfig("verifiers_env", max_turns, given))

    return make


def task(number: int = 0) -> dict[str, Any]:
    """A row as `get_dataset().to_json` writes it."""
    row = single().get_dataset()[number]
    return {"id": str(number), **row}


def started(make: Any) -> Any:
    episode = make()
    episode.reset(task())
    return episode


def tasks_of(episode: Any) -> set[Any]:
    """What runs in the loop of an episode's worker."""

    async def others() -> set[Any]:
        return asyncio.all_tasks() - {asyncio.current_task()}

    return asyncio.run_coroutine_threadsafe(others(), episode.shared.loop).result(9)


def soon(holds: Any) -> bool:
    """Whether something becomes true; what other threads do takes a moment."""
    for _ in range(200):
        if holds():
            return True
        time.sleep(0.01)
    return False


def call(name: str = "add", fault: str = "", **arguments: Any) -> Reply:
    return Reply("", calls=(ToolCall(name, arguments, "call_0", fault),))


def test_a_single_turn_is_scored_by_the_rubric(maker: Any) -> None:
    make = maker(single)
    check_contract(make, task(), [Reply("5")])
    episode = make()
    assert episode.reset(task()) == [
        {"role": "system", "content": "Answer."},
        {"role": "user", "content": "What is 2 + 3?"},
    ]
    result = checked_result(episode.step(Reply("The answer is 4.")), chat=True)
    assert (result.done, result.reward) == (True, 0.0)
    again = started(make)
    result = checked_result(again.step(Reply("6")), chat=True)
    assert result.reward == 0.25
    assert result.parts == {"right": 0.0, "brief": 1.0, "num_turns": 1.0}


def test_several_turns_are_continued_from_each_of_them(maker: Any) -> None:
    make = maker(Hint)
    check_contract(make, task(), [Reply("9", "hm"), Reply("1"), Reply("5")])
    check_contract(make, task(1), [Reply("9"), Reply("7")])
    episode = started(make)
    assert episode.step(Reply("9")).observation == [{"role": "user", "content": "1: lower"}]
    assert episode.step(Reply("5")).reward == 1.0


def test_tools_are_called_by_the_environment(maker: Any) -> None:
    make = maker(tool_environment)
    check_contract(make, task(), [call(a=2, b=3), call(a=5, b=0), Reply("5")])
    episode = started(make)
    function = episode.tools[0]["function"]
    assert (function["name"], function["description"]) == ("add", "Add two numbers.")
    assert function["parameters"]["required"] == ["a", "b"]
    result = episode.step(call(a=2, b=3))
    assert result.observation == [
        {"role": "tool", "content": "5", "name": "add", "tool_call_id": "call_0"}
    ]
    assert not result.malformed
    assert episode.step(Reply("5")).parts["add_calls"] == 1.0


@pytest.mark.parametrize("wrong", [call("sub", a=1), call(fault="no JSON"), call("", fault="none")])
def test_the_environment_answers_calls_that_cannot_be_made(maker: Any, wrong: Reply) -> None:
    episode = started(maker(tool_environment))
    result = episode.step(wrong)
    assert result.malformed and not result.done
    assert [message["role"] for message in result.observation] == ["tool"]
    assert episode.step(Reply("5")).reward == 1.0


def test_the_rows_of_its_data_set_are_tasks(maker: Any, tmp_path: Any) -> None:
    maker(tool_environment)
    file = str(tmp_path / "tasks.jsonl")
    vf.load_environment("probe").get_dataset().to_json(file)
    assert check.main(["verifiers_env", "--tasks", file, "--option", "id=probe"]) == 0


def test_a_turn_that_cannot_be_read_ends_the_episode(maker: Any) -> None:
    episode = started(maker(Hint))
    result = episode.step(Reply("", fault="the thought has no end"))
    assert (result.done, result.reward, result.malformed) == (True, 0.0, True)
    assert soon(lambda: not tasks_of(episode))


def test_the_last_turn_ends_the_episode(maker: Any) -> None:
    episode = started(maker(Hint, max_turns=2))
    assert not episode.step(Reply("9")).done
    result = episode.step(Reply("9"))
    assert (result.done, result.reward) == (True, 0.0)
    assert soon(lambda: not tasks_of(episode))


def test_thoughts_are_given_apart_or_in_the_text(maker: Any) -> None:
    def think() -> Any:
        return single(parser=vf.ThinkParser(), rubric=vf.Rubric([right], parser=vf.ThinkParser()))

    assert started(maker(think)).step(Reply("5", "easy")).reward == 0.0
    assert started(maker(think, thoughts_in_text=True)).step(Reply("5", "easy")).reward == 1.0


async def fails(self: Any, messages: Any, state: Any) -> Any:
    raise vf.ToolError("the tool is broken")


async def breaks(self: Any, messages: Any, state: Any) -> Any:
    raise KeyError("gone")


async def leaves(self: Any, messages: Any, state: Any) -> Any:
    raise SystemExit(3)


async def asks_twice(self: Any, messages: Any, state: Any) -> Any:
    ask = [self.get_model_response(state, messages) for _ in range(2)]
    await asyncio.gather(*ask)


async def asks_twice_and_goes_on(self: Any, messages: Any, state: Any) -> Any:
    ask = [self.get_model_response(state, messages) for _ in range(2)]
    await asyncio.gather(*ask, return_exceptions=True)
    return [vf.UserMessage(content="On.")]


async def asks_twice_and_ends(self: Any, messages: Any, state: Any) -> Any:
    state["final_env_response"] = await asks_twice_and_goes_on(self, messages, state)
    return state["final_env_response"]


async def rewrites(self: Any, messages: Any, state: Any) -> Any:
    messages[1].content = "What is 3 + 3?"
    return [vf.UserMessage(content="On.")]


async def rewrites_the_policy(self: Any, messages: Any, state: Any) -> Any:
    messages[-1].reasoning_content = None
    return [vf.UserMessage(content="On.")]


async def says_nothing(self: Any, messages: Any, state: Any) -> Any:
    return []


async def shows(self: Any, messages: Any, state: Any) -> Any:
    return [
        vf.UserMessage(content=[{"type": "image_url", "image_url": {"url": "data:image/png,"}}])
    ]


async def forgets_its_tools(self: Any, messages: Any, state: Any) -> Any:
    state["tool_defs"] = [vf.Tool(name="new", description="New.", parameters={})]
    return [vf.UserMessage(content="On.")]


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (fails, "rollout fails.*the tool is broken"),
        (breaks, "gone"),
        (asks_twice, "two completions at the same time"),
        (asks_twice_and_goes_on, "two completions at the same time"),
        (asks_twice_and_ends, "two completions at the same time"),
        (rewrites, "rewrites earlier messages: message 2 was .*2 \\+ 3.*, and is .*3 \\+ 3"),
        (rewrites_the_policy, "rewrites earlier messages: message 3"),
        (says_nothing, "without a new message"),
        (shows, "image_url, which is no text"),
        (forgets_its_tools, "changes its tools"),
    ],
)
def test_what_an_environment_must_not_do_fails_the_step(maker: Any, odd: Any, message: str) -> None:
    episode = started(maker(lambda: Hint(odd)))
    with pytest.raises((ValueError, RuntimeError, KeyError), match=message):
        episode.step(Reply("9", "hm"))
    assert soon(lambda: not tasks_of(episode))


@pytest.mark.parametrize("limit_s", [None, 30.0])
def test_an_environment_that_exits_leaves_the_loop_running(maker: Any, limit_s: Any) -> None:
    # With a time limit the environment plays in a separate task.
    make = maker(lambda: Hint(leaves, timeout_seconds=limit_s))
    with pytest.raises(SystemExit):
        started(make).step(Reply("9"))
    assert started(make).step(Reply("5")).reward == 1.0


def test_a_start_that_fails_fails_the_reset(maker: Any) -> None:
    with pytest.raises(RuntimeError, match="no room"):
        started(maker(lambda: Hint("setup")))


def test_a_reward_outside_its_range_is_refused(maker: Any) -> None:
    episode = started(maker(lambda: single(rubric=vf.Rubric([lambda completion: 2.0]))))
    with pytest.raises(BadResult, match="the reward is 2, which is not in"):
        checked_result(episode.step(Reply("5")), chat=True)


def test_an_abandoned_episode_leaves_nothing_behind(maker: Any) -> None:
    make = maker(Hint)
    shared = make().shared
    # The loop's own pool of threads is there from the first rollout on.
    started(make).step(Reply("5"))
    before = threading.active_count()
    episodes = [started(make) for _ in range(3)]
    for episode in episodes:
        episode.step(Reply("9"))
    assert len(tasks_of(episodes[0])) == 3
    episode.reset(task())
    watcher, cleaned = make(), shared.environment.cleaned
    assert soon(lambda: len(tasks_of(watcher)) == 3)
    del episode, episodes
    gc.collect()
    assert soon(lambda: not tasks_of(watcher))
    assert shared.environment.cleaned == cleaned + 3
    assert threading.active_count() == before


def test_an_environment_that_hangs_is_called_off(maker: Any) -> None:
    async def hangs(self: Any, messages: Any, state: Any) -> Any:
        await asyncio.sleep(60)

    episode = started(maker(lambda: Hint(hangs), turn_timeout_s=0.2))
    with pytest.raises(TimeoutError, match=r"turn_timeout_s = 0.2"):
        episode.step(Reply("9"))
    assert soon(lambda: not tasks_of(episode))
    assert episode.shared.environment.cleaned == 1


def test_it_is_loaded_within_a_loop_and_leaves_the_signals_alone(maker: Any) -> None:
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]

    def with_a_loop() -> Any:
        asyncio.run(asyncio.sleep(0))
        return single()

    async def load() -> Any:
        return maker(with_a_loop)

    assert started(asyncio.run(load())).step(Reply("5")).reward == 1.0
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == before


def compare(completions: Any) -> list[float]:
    return [0.0 for _ in completions]


def unknown() -> Any:
    raise RuntimeError("no such world")


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (unknown, r"load_environment\('probe'\) fails: .*no such world"),
        (lambda: single(rubric=vf.Rubric([compare])), "compare several rollouts"),
    ],
)
def test_an_environment_that_cannot_be_played_is_refused(
    maker: Any, load: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        maker(load)


def test_another_version_of_verifiers_is_refused(maker: Any, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "verifiers.clients", None)
    with pytest.raises(ValueError, match=r"it needs verifiers, 0\.1\.14 to 0\.3\.1"):
        maker(single)


@pytest.mark.parametrize("prompt", [None, [], "text"])
def test_a_task_needs_a_prompt(maker: Any, prompt: Any) -> None:
    with pytest.raises(ValueError, match="prompt must be a list of messages"):
        maker(single)().check_task({"id": "0", "prompt": prompt})
