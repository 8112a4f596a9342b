"""GeoHop's demonstrators: who shows the start policy how to search, rightly or with errors at decisions.

Used by make_start_policy.py. A demonstration is a list of segments, each tokenized on its own, as in a rollout.
"""

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from megatron_trace.data.tasks import Task
from megatron_trace.envs.search_qa import SearchQA

ENVIRONMENT: dict[str, Any] = {
    "top_k": 1,
    "max_turns": 6,
    "instruction": "",
    "max_observation_chars": 300,
}
"""The options of `search_qa` that the CPU configuration uses too."""
DETOUR_RATE = 0.05
"""Competent phase: rate of needless searches per turn. They are shown, not learnt; the recovery is learnt."""


@dataclass(frozen=True)
class Segment:
    """A text that is tokenized on its own: the question, an action or an observation."""

    kind: str
    text: str
    learn: bool


class Demonstrator:
    """Plays tasks in the real environment with full knowledge of the facts, and errs where it is told to.

    Its errors are decisions alone: it stops too early, or searches once too often. Whatever it decides, the
    name that it says next is the same, so wrong decisions do not blur what is to be copied.
    """

    def __init__(
        self, make: Callable[[], SearchQA], world: dict[str, dict[str, str]], noise: float
    ) -> None:
        """Args: the maker of episodes; title -> relation -> value; the error rate per turn (0: competent)."""
        self._environment = make()
        self._world = world
        self._noise = noise

    def play(self, task: Task, rng: random.Random) -> list[Segment]:
        """One episode, from question to answer, as segments."""
        segments = [Segment("question", self._environment.reset(task)[0]["content"], learn=False)]
        for action, learn in (
            self._competent(task, rng) if self._noise == 0 else self._noisy(task, rng)
        ):
            segments.append(Segment("action", action, learn))
            result = self._environment.step(action)
            if result.done:
                break
            segments.append(Segment("observation", result.observation, learn=False))
        return segments

    def _competent(self, task: Task, rng: random.Random) -> Iterator[tuple[str, bool]]:
        """The right actions; now and then a needless search is shown, not learnt, and the recovery is learnt."""
        relations, entity, hop = task["relations"], task["chain"][0], 0
        seen: dict[str, str] = {}
        for turn in range(ENVIRONMENT["max_turns"]):
            spare = ENVIRONMENT["max_turns"] - turn - (len(relations) - hop) - 1
            if spare > 0 and rng.random() < DETOUR_RATE:
                known = [
                    value
                    for value in [task["chain"][0], *seen.values()]
                    if value in self._world and value != entity
                ]
                lost = rng.choice(known or task["chain"][:1])
                yield search(relations[min(hop, len(relations) - 1)], lost), False
            elif hop == len(relations):
                yield answer(relations[-1], entity), True
            else:
                yield search(relations[hop], entity), True
                seen = self._world[entity]
                entity = seen[relations[hop]]
                hop += 1

    def _noisy(self, task: Task, rng: random.Random) -> Iterator[tuple[str, bool]]:
        """Stops early at `noise` a turn (half of it at the first), goes on too far at half of `noise`."""
        relations, entity, hop, too_far = task["relations"], task["chain"][0], 0, False
        for turn in range(ENVIRONMENT["max_turns"]):
            found, last = relations[max(hop - 1, 0)], turn == ENVIRONMENT["max_turns"] - 1
            if hop < len(relations):
                stop = rng.random() < self._noise * (0.5 if hop == 0 else 1.0)
            else:
                stop = too_far or last or rng.random() >= self._noise * 0.5
            if stop or last:
                yield answer(found, entity), True
            elif hop < len(relations):
                yield search(relations[hop], entity), True
                entity = self._world[entity][relations[hop]]
                hop += 1
            else:
                yield search(found, entity), True
                too_far = True
                fields = self._world.get(entity, {})
                entity = fields.get("capital") or fields.get("country") or entity


def search(relation: str, entity: str) -> str:
    """The action that looks `entity` up."""
    return f"I need the {relation} of {entity}. <search> {entity}</search>"


def answer(relation: str, value: str) -> str:
    """The action that ends the episode."""
    return f"I found the {relation}. <answer> {value}</answer>"


def names_from_titles(titles: list[str]) -> Callable[[random.Random], str]:
    """Invents names of two or three pieces of real ones."""

    def invent(rng: random.Random) -> str:
        parts = [rng.choice(titles) for _ in range(rng.choice((2, 2, 3)))]
        pieces = [
            part[: rng.randint(2, 6)] if n % 2 == 0 else part[-rng.randint(2, 5) :]
            for n, part in enumerate(parts)
        ]
        letters = [re.sub("[^A-Za-z]", "", piece).lower() for piece in pieces]
        return rng.choice(("", "", "", " ", "-")).join(letters).strip(" -").title() or "Aba"

    return invent


def names_from_tokens(vocabulary: list[str]) -> Callable[[random.Random], str]:
    """Invents names of any tokens that names can hold, so that each of them is at times what must be said."""
    starts = sorted(token[1:] for token in vocabulary if re.fullmatch("Ġ[A-Z][a-z]*", token))
    middles = sorted(token for token in vocabulary if re.fullmatch("[a-z]+", token))

    def invent(rng: random.Random) -> str:
        words = [
            rng.choice(starts) + "".join(rng.choices(middles, k=rng.choice((0, 0, 1, 1, 2, 3))))
            for _ in range(rng.choice((1, 1, 1, 2)))
        ]
        return rng.choice((" ", " ", " ", " of ", " and ", " of the ", "-", " de ")).join(words)

    return invent


def rename(
    segments: list[Segment],
    world: dict[str, dict[str, str]],
    rng: random.Random,
    invent: Callable[[random.Random], str],
) -> list[Segment]:
    """The same episode with an invented name for every name in it."""
    searched = {match for s in segments for match in re.findall(r"<search> (.*?)</search>", s.text)}
    names = searched | {value for title in searched for value in world.get(title, {}).values()}
    if not names:
        return segments
    invented = {
        name: "." + invent(rng)[:2].lower() if name.startswith(".") else invent(rng)
        for name in sorted(names)
    }
    longest_first = sorted(invented, key=lambda name: (-len(name), name))
    pattern = re.compile(r"(?<= )(?:" + "|".join(map(re.escape, longest_first)) + r")(?![\w-])")
    return [
        Segment(s.kind, pattern.sub(lambda m: invented[m[0]], s.text), s.learn) for s in segments
    ]
