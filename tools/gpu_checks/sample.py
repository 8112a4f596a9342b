"""What an engine said, as its process hands it on."""

from dataclasses import dataclass

from megatron_trace.rollout.engine import Generation


@dataclass(frozen=True)
class Sample:
    """A prompt and what the engine said after it."""

    prompt: list[int]
    said: Generation
