"""What rank 0's guard and those of the other ranks, maybe on other hosts, tell each other."""

import socket
import time
from pathlib import Path

from megatron_trace.supervise import collect_stacks
from megatron_trace.supervise.console import try_to_write
from megatron_trace.supervise.stacks import ASKED, asked_since

LEADER_GONE = "ended"
"""File in the guard folder: rank 0 is gone, so the other ranks must go as well."""

RANK_GONE = "rank_gone"
"""File in the guard folder: a rank ended badly, so rank 0 can neither train nor save any more."""

LOOK_S = 2.0
"""How often to look into the guard folder, which may be on a file server."""


class Follower:
    """The guard of a rank that is not rank 0, looking into the guard folder."""

    def __init__(self, folder: Path, own_file: Path, pid: int) -> None:
        """
        Args:
            folder: the guard folder.
            own_file: file that this guard made at its start; older requests are not for this start.
            pid: process id of the rank.
        """
        self._folder, self._own_file, self._pid = folder, own_file, pid
        self._looked_at = 0.0
        self._gave_stacks = False

    def leader_is_gone(self) -> bool:
        """Look into the folder if that is due; returns whether rank 0 was found to be gone."""
        if time.monotonic() - self._looked_at <= LOOK_S:
            return False
        self._looked_at = time.monotonic()
        self._give_stacks()
        return asked_since(self._folder / LEADER_GONE, self._own_file)

    def _give_stacks(self) -> None:
        if self._gave_stacks or not asked_since(self._folder / ASKED, self._own_file):
            return
        self._gave_stacks = True
        files = self._folder.glob(f"*_{socket.gethostname()}_{self._pid}.txt")
        # If rank 0 is on this host, its guard has asked this rank already.
        if not any(file.stat().st_size for file in files):
            collect_stacks.ask(self._pid)


def tell_followers(folder: Path) -> None:
    """Rank 0 is gone: tell the guards of the other ranks."""
    try_to_write(folder / LEADER_GONE, "")


class Leader:
    """The guard of rank 0, looking into the guard folder."""

    def __init__(self, folder: Path, own_file: Path) -> None:
        """See `Follower`."""
        self._file, self._own_file = folder / RANK_GONE, own_file
        self._looked_at = 0.0

    def rank_is_gone(self) -> str:
        """Look into the folder if that is due; returns which rank was found to be gone, or ""."""
        if time.monotonic() - self._looked_at <= LOOK_S:
            return ""
        self._looked_at = time.monotonic()
        if not asked_since(self._file, self._own_file):
            return ""
        try:
            return self._file.read_text(encoding="utf-8")
        except OSError:
            return ""


def tell_leader(folder: Path, rank: int) -> None:
    """`rank` ended badly: tell the guard of rank 0."""
    try_to_write(folder / RANK_GONE, f"train rank {rank} died")
