"""What a rank sends arrives whole, in its order, and a torn line costs only itself."""

import json
import os
import signal
from collections.abc import Iterator

import pytest

from megatron_trace.supervise.inbox import Inbox


@pytest.fixture
def pipes() -> Iterator[tuple[Inbox, int, int]]:
    """An inbox with the ends to write messages and signals to."""
    (messages, to_messages), (signals, to_signals) = os.pipe(), os.pipe()
    yield Inbox(messages, signals), to_messages, to_signals
    for descriptor in (messages, signals, to_messages, to_signals):
        try:
            os.close(descriptor)
        except OSError:
            continue


def test_a_message_that_comes_in_two_pieces_is_read_once_it_is_whole(pipes) -> None:
    inbox, to_messages, _ = pipes
    line = json.dumps({"beat": "sampling"}).encode() + b"\n"
    os.write(to_messages, line + line[:5])
    assert inbox.read() == ([], [{"beat": "sampling"}])
    os.write(to_messages, line[5:])
    assert inbox.read() == ([], [{"beat": "sampling"}])


def test_a_torn_line_costs_only_itself(pipes) -> None:
    inbox, to_messages, _ = pipes
    os.write(to_messages, b'{"hint": "to con\n5\n{"beat": "learning"}\n')
    assert inbox.read() == ([], [{"beat": "learning"}])


def test_only_signals_that_stop_a_run_are_told(pipes) -> None:
    inbox, _, to_signals = pipes
    os.write(to_signals, bytes([signal.SIGUSR1, signal.SIGTERM, signal.SIGCHLD, signal.SIGINT]))
    assert inbox.read() == ([signal.SIGTERM, signal.SIGINT], [])


def test_closed_pipes_are_silent(pipes) -> None:
    inbox, to_messages, to_signals = pipes
    os.close(to_messages)
    os.close(to_signals)
    for _ in range(3):
        assert inbox.read() == ([], [])
