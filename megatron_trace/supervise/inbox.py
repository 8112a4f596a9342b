"""What a guard hears from its rank: messages, and the signals that the rank got."""

import json
import os
import select
import signal
from contextlib import suppress
from typing import Any

POLL_S = 0.2
"""How long to wait for something to arrive."""

STOP_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM})
"""Signals that ask a run to end."""

CLOSED = -1


class Inbox:
    """The reading ends of two pipes from the rank."""

    def __init__(self, messages: int, signals: int) -> None:
        """
        Args:
            messages: descriptor to read JSON lines from.
            signals: descriptor to read numbers of signals from, a byte each.
        """
        self._messages, self._signals = messages, signals
        self._unfinished_line = b""

    def read(self) -> tuple[list[signal.Signals], list[dict[str, Any]]]:
        """Wait a moment; returns the stop signals and the messages that arrived."""
        # Not select(): it refuses descriptors from 1024 on, which a process with many files has.
        poll = select.poll()
        for pipe in (self._messages, self._signals):
            if pipe != CLOSED:
                poll.register(pipe, select.POLLIN)
        ready = {pipe for pipe, _ in poll.poll(1000 * POLL_S)}
        signals = self._read_signals() if self._signals in ready else []
        messages = self._read_messages() if self._messages in ready else []
        return signals, messages

    def _read_signals(self) -> list[signal.Signals]:
        data = os.read(self._signals, 4096)
        # An empty read is the end of the pipe: every process that could write to it is gone.
        if not data:
            self._signals = CLOSED
        return [signal.Signals(number) for number in data if number in STOP_SIGNALS]

    def _read_messages(self) -> list[dict[str, Any]]:
        data = os.read(self._messages, 1 << 16)
        if not data:
            self._messages = CLOSED
        *lines, self._unfinished_line = (self._unfinished_line + data).split(b"\n")
        messages = []
        for line in lines:
            # A line is torn if the pipe was full when the rank wrote the rest.
            with suppress(ValueError):
                messages.append(json.loads(line))
        return [message for message in messages if isinstance(message, dict)]
