"""One call as the worker sees it: what is handed over, what is read back, what that means."""

import codecs
import json
import os
import selectors
import signal
import socket
import time
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from typing import Any

from megatron_trace.envs.sandbox.inside.program import MEMORY
from megatron_trace.envs.sandbox.launch import SandboxError
from megatron_trace.envs.sandbox.limits import Limits, Outcome, Status

PATIENCE_S = 60.0
"""How much longer than `wall_s` a call may take before its server counts as dead. On a busy machine
the start and the end of a process take time."""

CHUNK = 65536


class ServerGone(Exception):
    """No report has come: the server is dead or hangs."""


def make_call(calls: socket.socket, code: str, limits: Limits) -> Outcome:
    """Run `code` by the server behind `calls`; waits for its end.

    Raises:
        ServerGone: another server may be tried.
        SandboxError: a lock of the sandbox does not close; the code has not run.
    """
    with ExitStack() as opened:
        text = opened.enter_context(open(os.memfd_create("code"), "w+b", buffering=0))
        # Of any length: a pipe would have to be filled while the outputs are read.
        _write_all(text, code.encode("utf-8", "surrogatepass"))
        text.seek(0)
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        opened.enter_context(ours)
        outputs = []
        with its, ExitStack() as handed:
            writers = []
            for _ in range(2):
                reader, writer = os.pipe()
                outputs.append(opened.enter_context(open(reader, "rb", buffering=0)))
                writers.append(handed.enter_context(open(writer, "wb", buffering=0)).fileno())
            fds = [text.fileno(), *writers, its.fileno()]
            try:
                socket.send_fds(calls, [b"c"], fds)
            except OSError as error:
                raise ServerGone(str(error)) from None
        return _collect(outputs, ours, limits)


def _write_all(file: Any, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]


def _collect(outputs: list[Any], caller: socket.socket, limits: Limits) -> Outcome:
    """Read both outputs until the server's report is there; the process is dead by then."""
    texts = {output.fileno(): bytearray() for output in outputs}
    report: bytes | None = None
    cut = False
    deadline = time.monotonic() + limits.wall_s + PATIENCE_S
    with selectors.DefaultSelector() as selector:
        for source in (*texts, caller):
            selector.register(source, selectors.EVENT_READ)
        while report is None:
            ready = [key for key, _ in selector.select(max(deadline - time.monotonic(), 0))]
            if not ready:
                raise ServerGone("no answer in time")
            for key in ready:
                if key.fileobj is caller:
                    report = _received(caller)
                elif not _read(key.fd, texts[key.fd], limits.output_bytes):
                    selector.unregister(key.fd)
            if not cut and _too_long(texts.values(), limits):
                cut = True
                _stop(caller)
    # What the process wrote last. Not to the end of the pipe: a process that was forked from this
    # one in the meantime may hold its other side.
    for fd, text in texts.items():
        os.set_blocking(fd, False)
        while _read(fd, text, limits.output_bytes):
            pass
    status = _status(report, limits)
    if _too_long(texts.values(), limits):
        status = "output"
    first, second = (_decoded(bytes(text), limits.output_bytes) for text in texts.values())
    return Outcome(first, second, status)


def _read(fd: int, text: bytearray, most: int) -> bool:
    """Append what can be read now, up to a byte more than `most`; False if there is nothing."""
    try:
        chunk = os.read(fd, CHUNK)
    except BlockingIOError:
        return False
    text += chunk[: most + 1 - len(text)]
    return bool(chunk)


def _too_long(texts: Iterable[bytearray], limits: Limits) -> bool:
    return any(len(text) > limits.output_bytes for text in texts)


def _received(caller: socket.socket) -> bytes:
    try:
        return caller.recv(CHUNK)
    except ConnectionError:
        return b""


def _stop(caller: socket.socket) -> None:
    # Not by a message: one that is never read, as the call has just ended, would destroy the report.
    with suppress(OSError):
        caller.shutdown(socket.SHUT_WR)


def _status(report: bytes, limits: Limits) -> Status:
    """What the server's report means."""
    if not report:
        raise ServerGone("the server has died")
    facts = json.loads(report)
    if "fault" in facts:
        raise SandboxError(f"a call cannot be locked in: {facts['fault']}")
    ending = facts["ending"]
    # The kernel counts ticks against the limit, and tells exact seconds. On a busy machine they differ.
    spent = ending == -signal.SIGKILL and facts["cpu_s"] >= limits.cpu_s / 2
    if facts["late"] or spent:
        return "timeout"
    if ending < 0:
        return "killed"
    return {0: "ok", MEMORY: "memory"}.get(ending, "error")  # type: ignore[return-value]


def _decoded(output: bytes, most: int) -> str:
    # The last character may have been cut in its middle.
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    return decoder.decode(output[:most], final=len(output) <= most)
