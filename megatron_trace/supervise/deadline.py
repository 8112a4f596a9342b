"""Until when a rank may live, and why its run has to end."""

import time

from megatron_trace.supervise.console import say

REPEAT_S = 2.0
"""Requests this close together are one. SLURM signals torchrun and its ranks, and torchrun signals
the ranks again."""

REACTION_S = 10.0
"""A rank that hung is killed unless it shows this soon that it can still save."""

NEVER = float("inf")


class Deadline:
    """The time at which the rank is killed; first never. Times are `time.monotonic` seconds."""

    def __init__(self, grace_s: float) -> None:
        """`grace_s` is how long the rank has to save and to leave once the end is asked for."""
        self.reason = ""
        self._grace_s = grace_s
        self._asked_at = 0.0
        self._killed_at = NEVER
        self._awaits_reaction = False

    def passed(self) -> bool:
        """Whether the rank has to be killed now."""
        return time.monotonic() > self._killed_at

    def waited_s(self) -> float:
        """Seconds since the end was asked for."""
        return time.monotonic() - self._asked_at

    def ask(self, reason: str) -> bool:
        """The run has to end: within the grace time, or at once if that was asked before.

        Returns:
            Whether this is the first request.
        """
        if not self.reason:
            self.reason, self._asked_at = reason, time.monotonic()
            self.limit(self._grace_s)
            return True
        # Whoever asks a second time does not want to wait for the save.
        if self.waited_s() > REPEAT_S:
            say(f"{reason} came after {self.reason}: ending at once")
            self._killed_at = time.monotonic()
        return False

    def limit_to_grace(self) -> None:
        """The rank leaves by itself, which must not take longer than the grace time."""
        self.limit(self._grace_s)

    def limit(self, seconds: float) -> None:
        """The rank lives at most `seconds` more."""
        self._killed_at = min(self._killed_at, time.monotonic() + seconds)

    def expect_reaction(self) -> None:
        """The rank hung. It may be unable to save, and then the grace time would be lost."""
        self._awaits_reaction = True
        self.limit(REACTION_S)

    def sign_of_life(self) -> None:
        """The rank has done something: if it seemed to hang, it now gets its whole grace time."""
        if self._awaits_reaction:
            self._awaits_reaction = False
            self._killed_at = self._asked_at + self._grace_s

    def lift(self) -> None:
        """The rank is being killed; there is nothing more to limit."""
        self._killed_at = NEVER
