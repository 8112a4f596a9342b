"""`PassageCache`: what a server has answered, in a file of SQLite that threads and processes share.

It only saves time. Whatever is wrong with the file is told, and the server is asked instead.
"""

import hashlib
import json
import logging
import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from megatron_trace.envs.retrieval.passages import Passage

Result = TypeVar("Result")

logger = logging.getLogger(__name__)

BUSY_S = 5.0
"""How long one process waits for another that writes."""

DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

TABLE = "CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, passages TEXT) WITHOUT ROWID"


class PassageCache:
    """Answers by URL, query and number of passages. Nothing is ever removed."""

    def __init__(self, path: str | Path) -> None:
        """Open or make the file at `path`; it should be on a disk of this node."""
        self._path = Path(path).absolute()
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._told = False

    def get(self, url: str, query: str, top_k: int) -> tuple[Passage, ...] | None:
        """What was answered, or None."""
        key = _key(url, query, top_k)
        row = self._safely(
            lambda db: db.execute("SELECT passages FROM answers WHERE key = ?", (key,)).fetchone()
        )
        try:
            return tuple(Passage(*one) for one in json.loads(row[0])) if row else None
        # The file was changed from outside.
        except (ValueError, TypeError):
            return None

    def put(self, url: str, query: str, top_k: int, passages: tuple[Passage, ...]) -> None:
        """Remember an answer."""
        row = (_key(url, query, top_k), json.dumps(passages))

        def insert(db: sqlite3.Connection) -> None:
            with db:
                db.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", row)

        self._safely(insert)

    def _safely(self, act: Callable[[sqlite3.Connection], Result]) -> Result | None:
        """What `act` returns, or None where the file does not serve."""
        with self._lock:
            try:
                return act(self._open())
            except (sqlite3.Error, OSError) as error:
                self._recover(error)
                return None

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # The lock of this class lets one thread use it at a time.
            db = sqlite3.connect(self._path, timeout=BUSY_S, check_same_thread=False)
            self._connection = db
            self._inode = self._path.stat().st_ino
            # What a power cut takes from a cache can be asked again.
            db.execute("PRAGMA synchronous = OFF")
            with db:
                db.execute(TABLE)
        return self._connection

    def _recover(self, error: sqlite3.Error | OSError) -> None:
        """Tell an error, and replace a file that is damaged."""
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None
        code = getattr(error, "sqlite_errorcode", None)
        if code is not None and code & 0xFF in DAMAGED:
            with suppress(OSError, Timeout), FileLock(f"{self._path}.lock", timeout=BUSY_S):
                self._set_aside(error)
        elif not self._told:
            self._told = True
            logger.warning("%s: the cache of searches does not serve: %s", self._path, error)

    def _set_aside(self, error: sqlite3.Error | OSError) -> None:
        # Another process may have replaced the file since this one opened it.
        if self._path.stat().st_ino != self._inode:
            return
        damaged = self._path.with_name(f"{self._path.name}.damaged")
        os.replace(self._path, damaged)
        # It belongs to the damaged file, and would spoil the new one.
        self._path.with_name(f"{self._path.name}-journal").unlink(missing_ok=True)
        logger.warning(
            "%s: replaced, as it is damaged (%s); kept as %s", self._path, error, damaged
        )


def _key(url: str, query: str, top_k: int) -> bytes:
    return hashlib.sha256(json.dumps([url, query, top_k]).encode()).digest()
