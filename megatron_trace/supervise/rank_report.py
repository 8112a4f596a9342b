"""What a rank has told its guard, and what the guard says of it in the end."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from megatron_trace.supervise import leftovers
from megatron_trace.supervise.leftovers import Process


class RankReport:
    """All that the rank has said so far.

    Attributes:
        phase: what it does.
        beat_at: when it last made progress or said anything, in `time.monotonic` seconds.
        forked: its children that were only forked; without exec they carry no tag.
        watched: name -> process whose death ends the run.
        exit_code: what it said it would exit with; None as long as it did not.
        last_words: why `exit_code` is not 0.
        hint: how to continue the run.
    """

    def __init__(self) -> None:
        """The rank has said nothing yet."""
        self.phase, self.beat_at = "starting", time.monotonic()
        self.forked: set[Process] = set()
        self.watched: dict[str, Process] = {}
        self.exit_code: int | None = None
        self.last_words, self.hint = "", ""

    def hear(self, message: dict[str, Any]) -> None:
        """Take one message of `guard.Guard`."""
        self.beat_at = time.monotonic()
        match message:
            case {"beat": phase}:
                self.phase = phase
            case {"child": pid}:
                if child := leftovers.find(pid):
                    self.forked.add(child)
            case {"watch": name, "pid": pid}:
                if process := leftovers.find(pid):
                    self.watched[name] = process
            case {"unwatch": _}:
                self.watched.clear()
            case {"hint": text}:
                self.hint = text
            case {"leave": code, "words": words}:
                self.exit_code, self.last_words = code, words

    def closing_lines(self, reason: str, stuck: set[Process], logs: Sequence[Path]) -> str:
        """The last lines of a run that ended badly.

        Args:
            reason: why the guard asked the run to end; "" if it did not.
            stuck: processes that could not be ended.
            logs: folders of logs that stay.
        """
        lines = [f"pid {process.pid} could not be ended" for process in stuck]
        lines += [f"logs of Ray and the engines: {path}" for path in logs]
        lines += [self._what_happened(reason), self.hint]
        return "\n".join(line for line in lines if line)

    def _what_happened(self, reason: str) -> str:
        # The rank's own words often repeat the reason, e.g. "stopped by SIGTERM" for SIGTERM.
        if self.last_words and reason not in self.last_words:
            return f"{reason}; {self.last_words}"
        if self.last_words:
            return self.last_words
        return f"the run was ended: {reason}" if reason else "train rank 0 was killed"
