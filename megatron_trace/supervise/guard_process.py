"""The guard: a small process beside every train rank that sees to it that the run ends whole. See `guard.py`.

It lives in a session of its own, imports only the standard library, and outlives the rank:

- The rank is gone, however it ended: whatever it left is ended and removed, then the last lines are printed.
- A signal came, torchrun died, or a phase made no progress for too long: the rank gets a limited time to save and to
  leave, and is killed after that. A second signal kills it at once.
"""

import json
import os
import select
import shutil
import signal
import socket
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_trace.supervise import collect_stacks, leftovers
from megatron_trace.supervise.leftovers import Process
from megatron_trace.supervise.stacks import ASKED, asked_since

POLL_S = 0.2
SAME_S = 2.0
"""Signals this close together are one request: SLURM signals torchrun and its ranks, and torchrun passes it on."""

TERM_GRACE_S = 2.0
"""From SIGTERM to SIGKILL, for what a dead rank left."""

REACTION_S = 10.0
"""A rank that hung is killed unless it shows this soon that it can still save."""

LAUNCHER_S = 35.0
"""torchrun ends this long after its ranks at the latest; its report should come before the last lines."""

ENDED = "ended"
"""File in the guard folder: rank 0 is gone, so the other ranks must go as well."""

FOLLOWER_GRACE_S = 3.0
"""How much longer than rank 0 the other ranks may take: it may need them up to its last moment."""

ENDED_S = 5.0
"""How long they may take once it is gone."""

LOOK_S = 2.0
"""How often they look into the guard folder, which may lie on a file server."""

STOPPING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM}


@dataclass
class Settings:
    """What the guard is told at its start; see `guard.start`.

    Attributes:
        rank: of the train rank that it guards.
        pid: of that rank.
        launcher: pid of torchrun; 0 where there is none.
        tag: environment tag of the rank's children.
        temp: folder of their temporary files.
        folder: the guard folder, shared by all ranks.
        report: file that the stacks are kept in.
        hang_s: seconds without progress after which the run ends; None never.
        grace_s: seconds from the request to end until the rank is killed.
        pipe, signals: descriptors to read messages and numbers of signals from.
    """

    rank: int
    pid: int
    launcher: int
    tag: str
    temp: str
    folder: str
    report: str
    hang_s: float | None
    grace_s: float
    pipe: int
    signals: int


class GuardProcess:
    """The state of one guard."""

    def __init__(self, settings: Settings) -> None:
        """Find the processes to watch; the rank waits for this."""
        self.settings = settings
        self.folder = Path(settings.folder)
        self.rank = leftovers.find(settings.pid)
        self.launcher = leftovers.find(settings.launcher) if settings.launcher else None
        self.shared_memory = leftovers.shared_memory()
        self.phase, self.beat = "starting", time.monotonic()
        self.forked: set[Process] = set()
        self.vital: dict[str, Process] = {}
        self.code: int | None = None  # what the rank said it would exit with
        self.words, self.hint = "", ""
        self.reason = ""  # why the run has to end, once it has to
        self.asked_at, self.deadline = 0.0, float("inf")
        self.hung = False  # no sign of life since the end was asked for
        self.looked_at, self.dumped, self.ended = 0.0, False, False
        self.rest = b""
        self.own_file = self.folder / f"guard{settings.rank}"
        write(self.own_file, "")

    def run(self) -> None:
        """Guard until the rank is gone, then clean up and speak the last lines."""
        while self.rank is not None and leftovers.lives(self.rank):
            self._read()
            self._watch_others()
            self._watch_clock()
        self._read()
        self._clean()

    def _read(self) -> None:
        """Take what the rank sent; waits a moment for it."""
        settings = self.settings
        poll = [fd for fd in (settings.pipe, settings.signals) if fd >= 0]
        ready, _, _ = select.select(poll, [], [], POLL_S)
        if not ready and not poll:
            time.sleep(POLL_S)
        if settings.signals in ready:
            data = os.read(settings.signals, 4096)
            for number in data:
                if number in STOPPING:
                    self._request(signal.Signals(number).name)
            settings.signals = settings.signals if data else -1
        if settings.pipe in ready:
            data = os.read(settings.pipe, 1 << 16)
            *lines, self.rest = (self.rest + data).split(b"\n")
            for line in lines:
                with suppress(ValueError):  # torn, where the pipe was full
                    self._hear(json.loads(line))
            settings.pipe = settings.pipe if data else -1

    def _hear(self, message: dict[str, Any]) -> None:
        self.beat = time.monotonic()
        if self.hung:
            self.hung, self.deadline = False, self.asked_at + self.settings.grace_s
        match message:
            case {"beat": phase}:
                self.phase = phase
            case {"child": pid}:
                if child := leftovers.find(pid):
                    self.forked.add(child)
            case {"watch": name, "pid": pid}:
                if process := leftovers.find(pid):
                    self.vital[name] = process
            case {"unwatch": _}:
                self.vital.clear()
            case {"hint": text}:
                self.hint = text
            case {"leave": code, "words": words}:
                self.code, self.words = code, words
                self._limit()

    def _request(self, why: str) -> None:
        """The run is to end: within the grace time, or at once where it was told so before."""
        now = time.monotonic()
        if not self.reason:
            self.reason, self.asked_at = why, now
            self._limit()
        elif now - self.asked_at > SAME_S:
            say(f"{why} came after {self.reason}: ending at once")
            self.deadline = now

    def _limit(self) -> None:
        grace_s = self.settings.grace_s + (FOLLOWER_GRACE_S if self.settings.rank else 0.0)
        self.deadline = min(self.deadline, time.monotonic() + grace_s)

    def _end(self, why: str) -> None:
        """The run is to end, and the rank does not know yet."""
        if self.rank is None or not leftovers.lives(self.rank):
            return  # that is why
        known = bool(self.reason)
        self._request(why)
        if not known:
            leftovers.send([self.rank], signal.SIGTERM)

    def _watch_others(self) -> None:
        if self.launcher is not None and not leftovers.lives(self.launcher):
            self.launcher = None
            self._end("torchrun died")
        for name, process in list(self.vital.items()):
            if not leftovers.lives(process):
                del self.vital[name]
                self._end(f"{name} died")
        if self.settings.rank and time.monotonic() - self.looked_at > LOOK_S:
            self.looked_at = time.monotonic()
            self._follow()

    def _follow(self) -> None:
        """Do as rank 0's guard says, which may be on another host."""
        if not self.dumped and asked_since(self.folder / ASKED, self.own_file):
            self.dumped = True
            files = self.folder.glob(f"*_{socket.gethostname()}_{self.settings.pid}.txt")
            if not any(
                file.stat().st_size for file in files
            ):  # where rank 0 is here, it has asked already
                collect_stacks.ask(self.settings.pid)
        if not self.ended and self.code is None and asked_since(self.folder / ENDED, self.own_file):
            self.ended = True
            self.deadline = min(self.deadline, time.monotonic() + ENDED_S)

    def _watch_clock(self) -> None:
        now, hang_s = time.monotonic(), self.settings.hang_s
        if (
            hang_s is not None
            and not self.reason
            and self.code is None
            and now - self.beat > hang_s
        ):
            text = f"no progress in phase '{self.phase}' for {now - self.beat:.0f} s"
            say(f"{text}; the stacks of all processes:")
            report = collect_stacks.collect(self.folder)
            say(report)
            file = Path(self.settings.report)
            write(file, f"{text}\n{report}\n")
            self._end(f"{text} (stacks: {file})")
            self.hung, self.deadline = True, min(self.deadline, time.monotonic() + REACTION_S)
        if now > self.deadline and self.rank is not None:
            say(f"train rank {self.settings.rank} {self._lateness()}; it is killed")
            leftovers.send([self.rank], signal.SIGKILL)
            self.deadline = float("inf")

    def _lateness(self) -> str:
        if self.code is not None:
            return f"did not exit within {self.settings.grace_s:.0f} s after its end"
        if self.ended:
            return "waits for rank 0, which is gone"
        phase = f", in phase '{self.phase}'" if self.settings.rank == 0 else ""
        return f"did not end within {time.monotonic() - self.asked_at:.0f} s{phase}"

    def _clean(self) -> None:
        """End what the rank left, remove what it made, and say what happened."""
        settings = self.settings
        if settings.rank == 0 and self.code != 0:
            write(self.folder / ENDED, "")
        if self.code is None:
            say(f"train rank {settings.rank} died without a word; ending what it left")

        def living() -> set[Process]:
            return leftovers.tagged(settings.tag) | {
                one for one in self.forked if leftovers.lives(one)
            }

        stuck = leftovers.end_all(living, TERM_GRACE_S)
        leftovers.remove_shared_memory(self.shared_memory)
        logs = leftovers.clear_folder(Path(settings.temp))
        self.own_file.unlink(missing_ok=True)
        if settings.rank == 0 and self.code != 0:
            self._speak(stuck, logs)
        if not list(
            self.folder.glob("guard*")
        ):  # the last to leave; the others must still find what is in it
            shutil.rmtree(self.folder, ignore_errors=True)

    def _speak(self, stuck: set[Process], logs: list[Path]) -> None:
        end = time.monotonic() + LAUNCHER_S
        while (
            self.launcher is not None and leftovers.lives(self.launcher) and time.monotonic() < end
        ):
            time.sleep(0.05)
        lines = [f"pid {pid} could not be ended" for pid, _ in stuck]
        lines += [f"logs of Ray and the engines: {path}" for path in logs]
        happened = self.words or (
            f"the run was ended: {self.reason}" if self.reason else "train rank 0 was killed"
        )
        if self.words and self.reason and self.reason not in self.words:
            happened = f"{self.reason}; {happened}"
        say("\n".join(filter(None, [*lines, happened, self.hint])))


def write(path: Path, text: str) -> None:
    """Write a file where that is possible: a full disk must not keep the guard from its work."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as error:
        say(f"{path} could not be written: {error.strerror}")


def say(text: str) -> None:
    """Print to the run's stderr, whole; nobody may be there to read it."""
    with suppress(OSError):
        os.write(2, f"{text}\n".encode())


if __name__ == "__main__":
    for ignored in STOPPING:
        signal.signal(ignored, signal.SIG_IGN)
    guard = GuardProcess(Settings(**json.loads(sys.argv[1])))
    os.write(1, b"ready\n")
    os.close(1)
    guard.run()
