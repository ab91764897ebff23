"""An inbox in one SQLite file: what is used without a server, by the processes of one machine.

Write-ahead log, ``synchronous=FULL``: a commit is on the disk when it returns. SQLite's write-ahead log needs shared
memory, so the file must lie on a file system of this machine (sqlite.org/wal.html).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Final

from sealflow.audit.entry import Entry
from sealflow.audit.inbox import (
    BATCH,
    Inbox,
    Refusal,
    SquattedError,
    Waiting,
    checked,
    forked,
    unavailable,
)
from sealflow.audit.sequencing import PARKED, in_order_of_arrival, rows_admitted, rows_parked, rows_woken
from sealflow.errors import UnavailableError, UsageError
from sealflow.findings import printable
from sealflow.storage.files import READ_FILE, errors
from sealflow.storage.local import sync_folder, to_path

#: How long to wait for others that write, in seconds.
PATIENCE: Final = 30.0

# A row waits while it has neither an index nor the code of a refusal. One whose predecessor is not there is parked, so
# that it is not read in vain by every run. The primary key says in which order rows came.
_TABLES = """
CREATE TABLE IF NOT EXISTS entries (
  id INTEGER PRIMARY KEY,
  writer TEXT NOT NULL,
  n INTEGER NOT NULL,
  line BLOB NOT NULL,
  hash TEXT,
  idx INTEGER UNIQUE,
  code TEXT,
  UNIQUE (writer, n)
);
CREATE INDEX IF NOT EXISTS waiting ON entries (id) WHERE idx IS NULL AND code IS NULL;
CREATE INDEX IF NOT EXISTS parked ON entries (id) WHERE code = 'AUDIT_WAITING';
"""

_WAITING = """
SELECT e.id, e.writer, e.n, e.line, b.idx, nullif(b.code, 'AUDIT_WAITING'), b.hash
FROM entries e LEFT JOIN entries b ON b.writer = e.writer AND b.n = e.n - 1
WHERE e.idx IS NULL AND e.code IS NULL AND e.id > ? ORDER BY e.id LIMIT ?
"""

_OF_PARENTS: list[sqlite3.Connection | None] = []


class SqliteInbox(Inbox):
    """See the module and :class:`~sealflow.audit.inbox.Inbox`. The file is made when missing, for its owner alone.

    Args:
        uri: ``sqlite:/absolute/path``.
    """

    def __init__(self, uri: str) -> None:
        path = uri.partition(":")[2]
        if not path.startswith("/") or "?" in path:
            raise UsageError(f"{printable(uri)!r} names no SQLite file.", next_step="Write sqlite:/absolute/path.db.")
        self._path = to_path(path)
        self.uri = f"sqlite:{self._path}"
        self.refusals: list[Refusal] = []
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._process = os.getpid()

    def put(self, entries: Sequence[Entry]) -> None:
        """See :class:`~sealflow.audit.inbox.Inbox`."""
        entries = checked(entries)
        for start in range(0, len(entries), BATCH):
            self._put(entries[start : start + BATCH])

    def _put(self, entries: Sequence[Entry]) -> None:
        squatted = None
        with self._transaction() as connection:
            for entry in entries:
                row = (entry.writer, entry.n, entry.line)
                done = connection.execute(
                    "INSERT INTO entries (writer, n, line) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", row
                )
                if done.rowcount:
                    continue
                held = connection.execute("SELECT 1 FROM entries WHERE writer = ? AND n = ? AND line = ?", row)
                if held.fetchone() is None:
                    squatted = entry
                    break
        if squatted is not None:
            raise SquattedError(squatted.writer, squatted.n, self.uri)

    def sequence(self, limit: int) -> int:
        """See :class:`~sealflow.audit.inbox.Inbox`."""
        after = 0
        while True:
            with self._transaction() as connection:
                rows = connection.execute(_WAITING, (after, limit)).fetchall()
                if not rows:
                    return 0
                ids = {(writer, n): number for number, writer, n, *_ in rows}
                admitted = rows_admitted([row[1:] for row in rows])
                taken = in_order_of_arrival(admitted.values(), ids)
                start = _size(connection)
                connection.executemany(
                    "UPDATE entries SET idx = ?, hash = ? WHERE id = ?",
                    [(start + i, entry.hash, ids[entry.writer, entry.n]) for i, entry in enumerate(taken)],
                )
                refused = [(code, writer, n) for writer, one in admitted.items() for n, code in one.refused]
                parked = [(PARKED, *slot) for slot in rows_parked(ids, admitted)]
                connection.executemany("UPDATE entries SET code = ? WHERE writer = ? AND n = ?", refused + parked)
                found = connection.executemany(
                    "UPDATE entries SET code = NULL WHERE writer = ? AND n > ? AND n <= ? AND code = ?",
                    [(*woken, PARKED) for woken in rows_woken(admitted, limit)],
                ).rowcount
            self.refusals += [Refusal(f"{writer}/{n}", code) for code, writer, n in refused]
            if taken:
                return len(taken)
            # Nothing of these can be taken yet, which must not hide what came later.
            after = 0 if found > 0 else rows[-1][0]

    def waiting(self) -> Waiting:
        """See :class:`~sealflow.audit.inbox.Inbox`. A file holds no times."""
        with self._transaction("DEFERRED") as connection:
            row = connection.execute("SELECT count(*), min(id) FROM entries WHERE code = 'AUDIT_WAITING'").fetchone()
            slot = connection.execute("SELECT writer, n FROM entries WHERE id = ?", (row[1],)).fetchone()
        return Waiting(row[0], f"{slot[0]}/{slot[1]}") if slot is not None else Waiting()

    def size(self) -> int:
        """See :class:`~sealflow.audit.inbox.Inbox`."""
        with self._transaction("DEFERRED") as connection:
            return _size(connection)

    def sequenced(self, start: int, count: int) -> list[bytes]:
        """See :class:`~sealflow.audit.inbox.Inbox`."""
        with self._transaction("DEFERRED") as connection:
            rows = connection.execute(
                "SELECT line FROM entries WHERE idx >= ? AND idx < ? ORDER BY idx", (start, start + count)
            ).fetchall()
            if len(rows) < min(count, max(0, _size(connection) - start)):
                raise forked(self.uri, f"entries with an index from {start} on are gone")
        return [bytes(line) for (line,) in rows]

    def last_hash(self, size: int) -> str:
        """See :class:`~sealflow.audit.inbox.Inbox`."""
        with self._transaction("DEFERRED") as connection:
            row = connection.execute("SELECT hash FROM entries WHERE idx = ?", (size - 1,)).fetchone()
        if row is None:
            raise forked(self.uri, f"the log has {size} entries, more than the inbox put in order")
        return str(row[0])

    def published(self, start: int, size: int) -> None:
        """See :class:`~sealflow.audit.inbox.Inbox`. The rows stay: they answer what is put again."""

    def index_of(self, writer: str, n: int) -> int | None:
        """See :class:`~sealflow.audit.inbox.Inbox`."""
        with self._transaction("DEFERRED") as connection:
            row = connection.execute("SELECT idx FROM entries WHERE writer = ? AND n = ?", (writer, n)).fetchone()
        return row[0] if row is not None else None

    def close(self) -> None:
        """See :class:`~sealflow.audit.inbox.Inbox`."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    @contextlib.contextmanager
    def _transaction(self, kind: str = "IMMEDIATE") -> Iterator[sqlite3.Connection]:
        if self._process != os.getpid():
            # Not even closing a connection is safe after a fork (sqlite.org/howtocorrupt.html, 2.6).
            _OF_PARENTS.append(self._connection)
            self._connection, self._lock, self._process = None, threading.Lock(), os.getpid()
        with self._lock, self._errors():
            connection = self._connection or self._open()
            try:
                connection.execute(f"BEGIN {kind}")
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                # Whatever state it is in, the next use begins with a new one.
                self._connection = None
                connection.close()
                raise

    def _open(self) -> sqlite3.Connection:
        folder = os.path.dirname(self._path)
        with errors(self._path):
            os.makedirs(folder, mode=0o700, exist_ok=True)
            try:
                os.close(os.open(self._path, READ_FILE | os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
                sync_folder(folder)
            except FileExistsError:
                pass
        # The files beside it take its mode.
        connection = sqlite3.connect(self._path, PATIENCE, isolation_level=None, check_same_thread=False)
        try:
            _use_write_ahead_log(connection)
            connection.execute("PRAGMA synchronous = FULL")
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'parked'").fetchone():
                connection.executescript(f"BEGIN IMMEDIATE; {_TABLES} COMMIT;")
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            # Python 3.10 has no names for SQLite's error codes, but their texts are fixed.
            raise self._translate(str(error)) from None

    def _translate(self, said: str) -> UnavailableError:
        if "disk is full" in said:
            return unavailable(self.uri, said, code="NO_SPACE", next_step="Make room on that file system.")
        return unavailable(self.uri, said)


def _size(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT coalesce(max(idx), -1) + 1 FROM entries").fetchone()[0])


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    # To change the mode SQLite waits for nobody, whatever its time-out: it could wait for one who waits for it.
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
