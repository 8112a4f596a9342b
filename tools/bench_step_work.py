"""What both sides of tools/bench_step.py work on."""

import json
from dataclasses import dataclass
from pathlib import Path

LEARNING_RATE = 1e-6
"""So small that all steps see nearly the same policy."""
CLIP_LOW, CLIP_HIGH = 0.2, 0.28


@dataclass(frozen=True)
class Work:
    """The steps of a side.

    Attributes:
        model: HF folder.
        questions: of all steps, one step after the other.
        steps: warm-up steps included.
        group: rollouts of each question.
        tokens: sampled tokens of each rollout.
        trl_batch: rollouts of a micro-batch of TRL's.
    """

    model: str
    questions: list[str]
    steps: int
    group: int
    tokens: int
    trl_batch: int

    @property
    def rollouts(self) -> int:
        """Rollouts of a step."""
        return len(self.questions) // self.steps * self.group


def read_work(file: str) -> Work:
    """The work that `file` holds as JSON."""
    return Work(**json.loads(Path(file).read_text()))


def prompt(question: str) -> list[dict[str, str]]:
    """A question as a chat."""
    return [{"role": "user", "content": question}]


def reward(text: str) -> float:
    """1 where a rollout's text has an even number of characters, else 0."""
    return 1.0 - len(text) % 2
