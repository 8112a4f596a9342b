"""The guard's process: it watches one train rank and cleans up after it. See `guard.py`.

It lives in a session that is not the rank's, starts fast because it imports little, and outlives
the rank:

- The rank is gone, however it ended: the guard ends and removes whatever the rank left, then prints
  the last lines.
- A signal came, torchrun died, or a phase made no progress for too long: the rank gets a limited
  time to save and to leave, and is killed after that. A second signal kills it at once.
"""

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

from megatron_trace.supervise import collect_stacks, leftovers
from megatron_trace.supervise.console import say, try_to_write
from megatron_trace.supervise.deadline import Deadline
from megatron_trace.supervise.follower import Follower, Leader, tell_followers, tell_leader
from megatron_trace.supervise.guard_settings import GuardSettings
from megatron_trace.supervise.inbox import STOP_SIGNALS, Inbox
from megatron_trace.supervise.leftovers import Process
from megatron_trace.supervise.rank_report import RankReport

TERM_GRACE_S = 2.0
"""From SIGTERM to SIGKILL, for what a dead rank left."""

LAUNCHER_S = 35.0
"""How long to wait for torchrun to end, so that its report comes before the last lines."""

FOLLOWER_GRACE_S = 3.0
"""How much longer than rank 0 the other ranks may take. Rank 0 may need them until it ends."""

RANK_GONE_S = 5.0
"""How long the other ranks may take once rank 0 is gone, or rank 0 once another is gone."""


class GuardProcess:
    """One guard: watches its rank, and cleans up after the rank."""

    def __init__(self, settings: GuardSettings) -> None:
        """Find the processes to watch; the rank waits for this."""
        self._settings = settings
        self._folder = Path(settings.folder)
        self._rank = leftovers.find(settings.pid)
        self._launcher = leftovers.find(settings.launcher) if settings.launcher else None
        self._launcher_died = self._launcher is None
        # What is there before the rank makes any belongs to others, and stays.
        self._shared_memory = leftovers.shared_memory()
        self._inbox = Inbox(settings.pipe, settings.signals)
        self._report = RankReport()
        self._own_file = self._folder / f"guard{settings.rank}"
        try_to_write(self._own_file, "")
        grace_s, self._follower = settings.grace_s, None
        if settings.rank:
            grace_s += FOLLOWER_GRACE_S
            self._follower = Follower(self._folder, self._own_file, settings.pid)
        self._leader = Leader(self._folder, self._own_file)
        self._deadline = Deadline(grace_s)
        self._leader_gone = self._follower_gone = False

    def run(self) -> None:
        """Guard until the rank is gone, then clean up and print the last lines."""
        while leftovers.lives(self._rank):
            self._listen()
            self._watch_processes()
            self._watch_leader()
            self._watch_followers()
            self._watch_progress()
            self._kill_if_late()
        # What the rank said last, such as its exit code, may still be in the pipe.
        self._listen()
        self._clean()

    def _listen(self) -> None:
        """Take what the rank sent; waits a moment for it."""
        signals, messages = self._inbox.read()
        for number in signals:
            self._deadline.ask(number.name)
        for message in messages:
            self._deadline.sign_of_life()
            self._report.hear(message)
            if "leave" in message:
                self._deadline.limit_to_grace()

    def _watch_processes(self) -> None:
        if not self._launcher_died and not leftovers.lives(self._launcher):
            self._launcher_died = True
            self._end("torchrun died")
        for name, process in list(self._report.watched.items()):
            if not leftovers.lives(process):
                del self._report.watched[name]
                self._end(f"{name} died")

    def _watch_leader(self) -> None:
        leaving = self._leader_gone or self._report.exit_code is not None
        if self._follower is not None and self._follower.leader_is_gone() and not leaving:
            self._leader_gone = True
            self._deadline.limit(RANK_GONE_S)

    def _watch_followers(self) -> None:
        """Do not let rank 0 spend its whole time to end on a collective that never ends."""
        done = self._follower is not None or self._report.exit_code is not None
        if done or self._follower_gone:
            return
        if gone := self._leader.rank_is_gone():
            self._follower_gone = True
            if not self._deadline.reason:
                self._end(gone)
            self._deadline.limit(RANK_GONE_S)

    def _watch_progress(self) -> None:
        """End a run that hangs, with the stacks of all its processes."""
        hang_s = self._settings.hang_s
        silent_s = time.monotonic() - self._report.beat_at
        ending = bool(self._deadline.reason) or self._report.exit_code is not None
        if hang_s is None or ending or silent_s <= hang_s:
            return
        text = f"no progress in phase '{self._report.phase}' for {silent_s:.0f} s"
        say(f"{text}; the stacks of all processes:")
        stacks = collect_stacks.collect(self._folder)
        say(stacks)
        file = Path(self._settings.stacks_file)
        try_to_write(file, f"{text}\n{stacks}\n")
        self._end(f"{text} (stacks: {file})")
        self._deadline.expect_reaction()

    def _end(self, reason: str) -> None:
        """The run has to end, and the rank does not know yet."""
        # torchrun and the watched processes also die because the rank does, which is no reason.
        if leftovers.lives(self._rank) and self._deadline.ask(reason):
            self._signal_rank(signal.SIGTERM)

    def _kill_if_late(self) -> None:
        if self._deadline.passed():
            say(f"train rank {self._settings.rank} {self._lateness()}; it is killed")
            self._signal_rank(signal.SIGKILL)
            self._deadline.lift()

    def _signal_rank(self, number: int) -> None:
        if self._rank is not None:
            leftovers.send([self._rank], number)

    def _lateness(self) -> str:
        if self._report.exit_code is not None:
            return f"did not exit within {self._settings.grace_s:.0f} s after its end"
        if self._leader_gone:
            return "waits for rank 0, which is gone"
        if self._follower_gone:
            return "waits for a train rank that is gone"
        phase = f", in phase '{self._report.phase}'" if self._settings.rank == 0 else ""
        return f"did not end within {self._deadline.waited_s():.0f} s{phase}"

    def _clean(self) -> None:
        """End what the rank left, remove what it made, and say what happened."""
        settings = self._settings
        ended_badly = settings.rank == 0 and self._report.exit_code != 0
        if ended_badly:
            tell_followers(self._folder)
        if settings.rank and self._report.exit_code != 0:
            tell_leader(self._folder, settings.rank)
        if self._report.exit_code is None:
            say(f"train rank {settings.rank} died; ending what it left")
        stuck = leftovers.end_all(self._left, TERM_GRACE_S)
        leftovers.remove_shared_memory(self._shared_memory)
        logs = leftovers.clear_folder(Path(settings.temp))
        self._own_file.unlink(missing_ok=True)
        if ended_badly:
            self._wait_for_launcher()
            say(self._report.closing_lines(self._deadline.reason, stuck, logs))
        # The last guard removes the folder: the others must still find what is in it.
        if not list(self._folder.glob("guard*")):
            shutil.rmtree(self._folder, ignore_errors=True)

    def _left(self) -> set[Process]:
        forked = {process for process in self._report.forked if leftovers.lives(process)}
        return leftovers.tagged(self._settings.tag) | forked

    def _wait_for_launcher(self) -> None:
        end = time.monotonic() + LAUNCHER_S
        while leftovers.lives(self._launcher) and time.monotonic() < end:
            time.sleep(0.05)


if __name__ == "__main__":
    for ignored in STOP_SIGNALS:
        signal.signal(ignored, signal.SIG_IGN)
    guard = GuardProcess(GuardSettings(**json.loads(sys.argv[1])))
    os.write(1, b"ready\n")
    os.close(1)
    guard.run()
