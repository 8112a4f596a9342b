"""A player of text games who follows the walkthrough, and errs at times.

Used by make_text_game_policy.py.
"""

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from megatron_trace.envs import Environment
from megatron_trace.models.messages import Reply

IDLE = ("look", "inventory")
"""Commands that change nothing."""

KINDS = {"c": "container", "s": "supporter", "o": "thing", "k": "thing", "f": "thing"}
"""TextWorld's type of a thing -> things whose names can stand for each other."""


@dataclass(frozen=True)
class Play:
    """A game as it was played.

    Attributes:
        prompt: the game's beginning.
        turns: each command, with the game's answer; that to the last one is "".
    """

    prompt: str
    turns: tuple[tuple[str, str], ...]


Names = Mapping[str, str]
"""Name of a thing -> its kind."""


def names_in(path: str) -> Names:
    """The things in a game, but for doors and rooms.

    Args:
        path: of the .z8 file; the game's .json is beside it.
    """
    import textworld

    infos = textworld.Game.load(f"{path.removesuffix('.z8')}.json").infos.values()
    return {one.name: KINDS[one.type] for one in infos if one.name and one.type in KINDS}


def played(
    episode: Environment,
    task: Mapping[str, Any],
    others: Sequence[str],
    noise: float,
    rng: random.Random,
) -> Play:
    """Play a game by its walkthrough, until it is over.

    Args:
        others: commands of other games.
        noise: how often a turn is given to an idle command, or to one of another game.
    """
    prompt = episode.reset(task)[-1]["content"]
    turns, left = [], list(task["walkthrough"])
    done = False
    while left and not done:
        useless = rng.choice(IDLE if rng.random() < 0.3 else others)
        command = useless if rng.random() < noise else left.pop(0)
        result = episode.step(Reply(command))
        turns.append((command, str(result.observation)))
        done = result.done
    return Play(prompt, tuple(turns))


def standing_still(tasks: Sequence[Mapping[str, Any]]) -> list[str]:
    """All commands of all walkthroughs that move nobody: an error leaves the player where he is."""
    commands = {command for task in tasks for command in task["walkthrough"]}
    return sorted(command for command in commands if not command.startswith("go "))


def renamed(
    play: Play, names: Names, pool: Mapping[str, Sequence[str]], rng: random.Random
) -> Play:
    """The same game with other things in it, so that a policy must read their names.

    Args:
        names: of the game.
        pool: kind -> names of all games.
    """
    if not names:
        return play
    new: dict[str, str] = {}
    for name, kind in names.items():
        new[name] = rng.choice([one for one in pool[kind] if one not in new.values()])
    # The longest first: a name may lie within another.
    longest = sorted(names, key=len, reverse=True)
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, longest))})\b")

    def other(text: str) -> str:
        return pattern.sub(lambda match: new[match[1]], text)

    return Play(other(play.prompt), tuple((other(a), other(b)) for a, b in play.turns))


def texts(play: Play) -> Iterator[str]:
    """All that is said in it."""
    yield play.prompt
    for turn in play.turns:
        yield from turn
