"""Text games of TextWorld (arXiv 1806.11532): the policy's text is a command, the game answers.

A task is `{"game": "games/tw-3.z8", "sha256": "…"}`, as `tools/build_text_games.py` makes them; a
relative path counts from the folder in which the run was started.
"""

import hashlib
import re
import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_trace.config import setting
from megatron_trace.envs.chat_environment import ChatEnvironment
from megatron_trace.envs.environment import StepResult
from megatron_trace.models.messages import Reply

INSTRUCTION = (
    "You play a text adventure. Say one command a turn and nothing else, such as: go north, open "
    "box, take key from box, unlock door with key."
)

MOST_COMMAND_CHARS = 100
"""Of a command; the rest is not given to the game."""

FILE_VERBS = {"save", "restore", "script", "transcrip", "recording", "replay"}
"""First nine letters, which are all that a game looks at, of commands that write and read files."""


class TextGame(ChatEnvironment):
    """One game. Its reward is the share of the game's points, which is 1 for a won game.

    A game's state cannot be copied as JSON, so an episode is continued by its commands. Games are
    deterministic.
    """

    replays = True

    @dataclass
    class Options:
        """What the policy reads."""

        instruction: str = setting(INSTRUCTION, "the system message; empty: none")
        max_observation_chars: int = setting(
            2_000, "the game's answer is cut to this many characters", at_least=1
        )

    @classmethod
    def load(cls, options: Options) -> Any:
        """The function that starts a game.

        Raises:
            ValueError: textworld is not installed.
        """
        try:
            import textworld
        except ImportError:
            raise ValueError("it needs textworld: pip install textworld") from None
        # Jericho warns of every game that it does not know by name.
        warnings.filterwarnings("ignore", message="Game .* is not fully supported")
        asked = textworld.EnvInfos(feedback=True, won=True, lost=True, score=True, max_score=True)
        # TextWorld's parser is one for all threads, and fails where two of them read a game at once.
        one_at_a_time = threading.Lock()

        def start(path: str) -> Any:
            with one_at_a_time:
                return textworld.start(path, asked)

        return start

    def check_task(self, task: Mapping[str, Any]) -> None:
        """Refuse a task whose game is missing or another.

        Raises:
            ValueError: what is wrong.
        """
        path = task.get("game")
        if not isinstance(path, str) or not path.endswith(".z8"):
            raise ValueError(f"game must be the path of a .z8 file, not {path!r}")
        if not Path(path).is_file():
            raise ValueError(f"no such game: {path}; make it by tools/build_text_games.py")
        if "sha256" in task and _sha256(path) != task["sha256"]:
            raise ValueError(f"{path} is another game than the task's: its SHA-256 differs")

    def reset(self, task: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Start the game; the prompt is its beginning."""
        self._game = self.shared(task["game"])
        self._turns = 0
        first = [{"role": "user", "content": self._told(_after_title(self._game.reset().feedback))}]
        if self.options.instruction:
            return [{"role": "system", "content": self.options.instruction}, *first]
        return first

    def step(self, action: Reply) -> StepResult:
        """Give the game a command. What the game does not understand is no malformed turn."""
        self._turns += 1
        command = _harmless(action.text)
        if action.fault or not command:
            return StepResult("", done=True, reward=0.0, malformed=True)
        # A command may hold several, such as "look then save".
        if any(word[:9] in FILE_VERBS for word in re.findall("[a-z]+", command.lower())):
            command = "?"
        state, _, done = self._game.step(command)
        if done or self._turns >= self.max_turns:
            reward = max(0, state.score) / max(1, state.max_score)
            return StepResult("", done=True, reward=reward, malformed=False)
        return StepResult(self._told(state.feedback), done=False, reward=0.0, malformed=False)

    def _told(self, feedback: str) -> str:
        # A game ends with its prompt, after which it draws a line with the room and the score.
        text = feedback.rpartition("\n>")[0].strip() or "Nothing happens."
        return text[: self.options.max_observation_chars]


def _after_title(text: str) -> str:
    """A game's beginning without the title, which is drawn in characters."""
    return text.rpartition("$$$")[2].lstrip(" $\\|_/\n") or text


def _harmless(text: str) -> str:
    """A command that the interpreter survives, in one line.

    It is a program in C without checks. A backslash makes it wait for ever for a command of its own;
    with other characters than ASCII's it wrote beyond its buffers, and the worker died.
    """
    return re.sub("[^A-Za-z0-9 '.,-]", "?", " ".join(text.split()))[:MOST_COMMAND_CHARS]


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
