"""GeoHop's demonstrators: they show the start policy how to search, rightly or with wrong
decisions.

Used by make_start_policy.py. A demonstration is a list of segments. Each segment is tokenized
alone, as in a rollout.
"""

import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from cloning_tokenizer import Segment

from megatron_trace.data.tasks import Task
from megatron_trace.envs.builtin.search_qa import SearchQA

VOCABULARY = 2_048
TAGS = ["<search>", "</search>", "<information>", "</information>", "<answer>", "</answer>"]

MAX_TURNS = 6
"""Turns of an episode, as in the CPU configuration."""

WIDE_TURNS = 14
"""The same of the wide tasks."""

DETOUR_RATE = 0.05
"""Competent phase: rate of needless searches per turn. The search is shown, and the recovery from
it is learnt.
"""


def geo_hop_episodes(folder: Path, max_turns: int = MAX_TURNS) -> Callable[[], SearchQA]:
    """The maker of episodes over GeoHop's corpus in `folder`, with the options of the CPU
    configurations.
    """
    options = SearchQA.Options(
        corpus=str(folder / "corpus-*.tar"), top_k=1, max_observation_chars=300, instruction=""
    )
    return SearchQA.maker(options, max_turns)


class Demonstrator:
    """Plays tasks in the real environment with full knowledge of the facts, and errs where it is
    told to.

    Its errors are only decisions: it stops too early, or searches once too often. Whatever it
    decides, the name that it says next is the same, so wrong decisions do not blur what is to be
    copied.
    """

    def __init__(
        self,
        make: Callable[[], SearchQA],
        world: dict[str, dict[str, str]],
        noise: float,
        max_turns: int = MAX_TURNS,
    ) -> None:
        """Make the environment.

        Args:
            make: makes an episode.
            world: title -> relation -> value.
            noise: the error rate per turn; 0 is the competent demonstrator.
            max_turns: of an episode of `make`.
        """
        self._environment = make()
        self._world = world
        self._noise = noise
        self._max_turns = max_turns

    def play(self, task: Task, rng: random.Random) -> list[Segment]:
        """One episode, from question to answer, as segments."""
        (prompt,) = self._environment.reset(task)
        segments = [Segment("question", prompt["content"], learn=False)]
        # The competent demonstrator has its own generator, since it draws other random numbers.
        actions = self._competent(task, rng) if self._noise == 0 else self._noisy(task, rng)
        for action, learn in actions:
            segments.append(Segment("action", action, learn))
            result = self._environment.step(action)
            if result.done:
                break
            segments.append(Segment("observation", str(result.observation), learn=False))
        return segments

    def _competent(self, task: Task, rng: random.Random) -> Iterator[tuple[str, bool]]:
        """The right actions, and now and then a needless search; each with whether it is learnt."""
        relations, start = task["relations"], task["chain"][0]
        entity, hop = start, 0
        seen: dict[str, str] = {}
        for turn in range(self._max_turns):
            spare = self._max_turns - turn - (len(relations) - hop) - 1
            if spare > 0 and rng.random() < DETOUR_RATE:
                # A detour leads to a title that the episode has shown: the policy can only copy.
                shown = [start, *seen.values()]
                titles = [name for name in shown if name in self._world and name != entity]
                lost = rng.choice(titles or [start])
                relation = relations[min(hop, len(relations) - 1)]
                yield search(relation, lost), False
            elif hop == len(relations):
                yield answer(relations[-1], entity), True
            else:
                yield search(relations[hop], entity), True
                seen = self._world[entity]
                entity = seen[relations[hop]]
                hop += 1

    def _noisy(self, task: Task, rng: random.Random) -> Iterator[tuple[str, bool]]:
        """Stops too early at the rate `noise` (half of it in the first turn), too late at half of
        `noise`.
        """
        relations, entity = task["relations"], task["chain"][0]
        hop, too_far = 0, False
        for turn in range(self._max_turns):
            last = turn == self._max_turns - 1
            found = relations[max(hop - 1, 0)]
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
                # The search that is one too many asks for the answer's own document. What is
                # answered then is a name from that document, or the answer where it has none.
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


Invent = Callable[[random.Random], str]
"""Makes up a name."""


def names_from_titles(titles: list[str]) -> Invent:
    """Names of two or three pieces of real names."""

    def invent(rng: random.Random) -> str:
        parts = [rng.choice(titles) for _ in range(rng.choice((2, 2, 3)))]
        letters = []
        for number, part in enumerate(parts):
            # Beginnings and ends take turns, so that the pieces sound like parts of one name.
            piece = part[: rng.randint(2, 6)] if number % 2 == 0 else part[-rng.randint(2, 5) :]
            letters.append(re.sub("[^A-Za-z]", "", piece).lower())
        joint = rng.choice(("", "", "", " ", "-"))
        return joint.join(letters).strip(" -").title() or "Aba"

    return invent


def names_from_tokens(vocabulary: list[str]) -> Invent:
    """Names of any tokens that a name can hold, so that each of these tokens is a target at times."""
    # Ġ is how a byte-level BPE writes the space at the beginning of a word.
    starts = sorted(token[1:] for token in vocabulary if re.fullmatch("Ġ[A-Z][a-z]*", token))
    middles = sorted(token for token in vocabulary if re.fullmatch("[a-z]+", token))

    def word(rng: random.Random) -> str:
        start = rng.choice(starts)
        length = rng.choice((0, 0, 1, 1, 2, 3))
        return start + "".join(rng.choices(middles, k=length))

    def invent(rng: random.Random) -> str:
        words = [word(rng) for _ in range(rng.choice((1, 1, 1, 2)))]
        joint = rng.choice((" ", " ", " ", " of ", " and ", " of the ", "-", " de "))
        return joint.join(words)

    return invent


def rename(
    segments: list[Segment],
    world: dict[str, dict[str, str]],
    rng: random.Random,
    invent: Invent,
) -> list[Segment]:
    """The same episode with an invented name in place of every name."""
    names = names_in(segments, world)
    if not names:
        return segments
    invented = {}
    for name in sorted(names):
        invented[name] = invent(rng)
        if name.startswith("."):
            # An internet domain stays a dot and two letters.
            invented[name] = "." + invented[name][:2].lower()
    # The longest name first, since a regular expression takes the first alternative that fits.
    longest_first = sorted(invented, key=lambda name: (-len(name), name))
    alternatives = "|".join(map(re.escape, longest_first))
    pattern = re.compile(rf"(?<= )(?:{alternatives})(?![\w-])")
    renamed = []
    for segment in segments:
        text = pattern.sub(lambda match: invented[match[0]], segment.text)
        renamed.append(Segment(segment.kind, text, segment.learn))
    return renamed


def names_in(segments: list[Segment], world: dict[str, dict[str, str]]) -> set[str]:
    """What an episode searches for, and every value in the documents of these titles."""
    searched: set[str] = set()
    for segment in segments:
        searched.update(re.findall(r"<search> (.*?)</search>", segment.text))
    values: set[str] = set()
    for title in searched:
        values.update(world.get(title, {}).values())
    return searched | values
