"""An index of the verdicts in the audit log: one SQLite file, made from the log and made anew at any time.

Any number of processes read it while one writes it. What is in it was written by others: texts are cut to a length that
is known, and escaped by whoever shows them.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from sealflow.audit.event import AuditEvent
from sealflow.errors import UnavailableError
from sealflow.findings import printable

#: Most verdicts that are kept, and a tenth more for a while. A row takes 0.5 KiB in the file, and 6 KiB at most.
MAX_ROWS: Final = 250_000
#: The longest name that a DAG of Airflow's can have.
MAX_DAG_ID: Final = 250

#: Changes with the tables; a file of another version is left alone, and a new one is made.
_VERSION: Final = 1
_MAX_TEXT: Final = 1024
_MAX_NAME: Final = 512
_MAX_LISTED: Final = 16
_PATIENCE: Final = 5.0
_AIRFLOW: Final = "airflow"

_TABLES = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS verdicts (
  idx INTEGER PRIMARY KEY,
  time TEXT NOT NULL,
  owner TEXT NOT NULL,
  orchestrator TEXT NOT NULL,
  workflow TEXT NOT NULL,
  task TEXT NOT NULL,
  run TEXT NOT NULL,
  map_index INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  action TEXT NOT NULL,
  outcome TEXT NOT NULL,
  artifact TEXT NOT NULL,
  digest TEXT NOT NULL,
  codes TEXT NOT NULL,
  rule TEXT NOT NULL,
  policy TEXT NOT NULL,
  signers TEXT NOT NULL,
  producer TEXT NOT NULL,
  key TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS by_run ON verdicts (owner, run, idx);
CREATE INDEX IF NOT EXISTS by_owner ON verdicts (owner, idx);
CREATE INDEX IF NOT EXISTS by_time ON verdicts (time, outcome, owner);
CREATE INDEX IF NOT EXISTS by_digest ON verdicts (digest, idx) WHERE digest <> '';
CREATE INDEX IF NOT EXISTS refused ON verdicts (idx, owner) WHERE outcome IN ('failed', 'unverifiable', 'error');
"""


@dataclass(frozen=True)
class Row:
    """One outcome that the log tells of.

    Attributes:
        idx: Index of its entry in the log.
        time: By the writer's clock, RFC 3339.
        owner: The DAG, empty for what is none of Airflow's.
        orchestrator: Where it ran.
        workflow: DAG or pipeline.
        task: Task.
        run: Run.
        map_index: Index of a mapped task, -1 when not mapped.
        attempt: Try, 0 when unknown.
        action: The verb.
        outcome: ``done``, ``passed``, ``failed``, ``unverifiable`` or ``error``.
        artifact: Location.
        digest: Artifact digest.
        codes: What decided, the first one above all.
        rule: Names of the rules that applied.
        policy: Digest of the policy.
        signers: Fingerprints of keys whose evidence was accepted.
        producer: Producer that accepted provenance names.
        key: Fingerprint of the key that was used.
    """

    idx: int
    time: str
    owner: str
    orchestrator: str
    workflow: str
    task: str
    run: str
    map_index: int
    attempt: int
    action: str
    outcome: str
    artifact: str
    digest: str
    codes: tuple[str, ...]
    rule: str
    policy: str
    signers: tuple[str, ...]
    producer: str
    key: str

    @classmethod
    def of(cls, idx: int, event: AuditEvent) -> Row:
        """Return the row of an event."""
        run = event.run
        return cls(
            idx=idx,
            time=event.time,
            # Cut, a long name could be that of a DAG; with what is put behind it, it cannot.
            owner=_cut(run.workflow, MAX_DAG_ID) if run.orchestrator == _AIRFLOW else "",
            orchestrator=run.orchestrator,
            workflow=_cut(run.workflow, MAX_DAG_ID),
            task=_cut(run.task, _MAX_NAME),
            run=_cut(run.run, _MAX_NAME),
            map_index=-1 if run.map_index is None else _number(run.map_index),
            attempt=_number(run.attempt or 0),
            action=event.action,
            outcome=event.outcome,
            artifact=_cut(event.artifact, _MAX_TEXT),
            digest=_cut(event.digest, _MAX_NAME),
            codes=_listed(event.codes),
            rule=_cut(event.rule, _MAX_NAME),
            policy=_cut(event.policy, _MAX_NAME),
            signers=_listed(event.signers),
            producer=_cut(event.producer, _MAX_NAME),
            key=_cut(event.key, _MAX_NAME),
        )

    @property
    def values(self) -> tuple[Any, ...]:
        """The members in their order, as the table holds them."""
        return tuple(" ".join(item) if isinstance(item, tuple) else item for item in self.__dict__.values())

    @classmethod
    def read(cls, values: Sequence[Any]) -> Row:
        """Return the row that the table holds."""
        members = dict(zip(COLUMNS, values, strict=True))
        return cls(**{**members, "codes": _split(members["codes"]), "signers": _split(members["signers"])})

    @property
    def refused(self) -> bool:
        """Whether somebody has to look at it."""
        return self.outcome in REFUSED


#: Outcomes that keep a task from going on.
REFUSED: Final = ("failed", "unverifiable", "error")
#: The table's columns, in their order.
COLUMNS: Final = tuple(item.name for item in fields(Row))
_INSERT = f"INSERT OR REPLACE INTO verdicts VALUES ({', '.join('?' * len(COLUMNS))})"  # noqa: S608


@dataclass(frozen=True)
class Facts:
    """What the index says of itself.

    Attributes:
        size: Entries of the log that it was made from, all proved by the log's checkpoint.
        edge: The log's tree at that size, see :class:`sealflow.audit.merkle.Frontier`.
        next: Index of the next entry that the inbox is asked for.
        unreadable: Entries that held no event.
        left: Verdicts that had to leave the index.
        read_at: Seconds since 1970 at which everything was read without a problem; 0 for never.
        problem: Code of what kept it from being read; empty when nothing did.
        message: The same in words.
    """

    size: int = 0
    edge: tuple[tuple[int, str], ...] = ()
    next: int = 0
    unreadable: int = 0
    left: int = 0
    read_at: float = 0.0
    problem: str = ""
    message: str = ""


class Index:
    """See the module. Each use opens the file anew, so it may be used by any thread.

    Args:
        folder: Where the file lies; made when missing, for its owner alone.
        source: What it is made from; another source has another file.
    """

    def __init__(self, folder: str, source: str) -> None:
        import hashlib

        name = hashlib.sha256(source.encode("utf-8", "replace")).hexdigest()[:16]
        self.folder = folder
        self.path = os.path.join(folder, f"verdicts-{_VERSION}-{name}.db")

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Open it to read, at one moment.

        Raises:
            UnavailableError: It cannot be read.
        """
        with self._open() as connection:
            connection.execute("PRAGMA query_only = ON")
            connection.execute("BEGIN")
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Open it to write; everything or nothing is kept.

        Raises:
            UnavailableError: It cannot be written.
        """
        with self._open() as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")

    def remove(self) -> None:
        """Throw it away."""
        for end in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.remove(self.path + end)

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            os.makedirs(self.folder, mode=0o700, exist_ok=True)
            # The files beside it take its mode.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
            connection = sqlite3.connect(self.path, _PATIENCE, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise _unavailable(self.path, error) from None
        try:
            _prepare(connection)
            yield connection
        except sqlite3.DatabaseError as error:
            if isinstance(error, (sqlite3.OperationalError, sqlite3.IntegrityError, sqlite3.ProgrammingError)):
                raise _unavailable(self.path, error) from None
            # Nothing in it is known from here alone.
            self.remove()
            raise _unavailable(self.path, error) from None
        finally:
            connection.close()


def facts_of(connection: sqlite3.Connection) -> Facts:
    """Return what an index says of itself."""
    found = {name: json.loads(value) for name, value in connection.execute("SELECT name, value FROM facts")}
    if "edge" in found:
        found["edge"] = tuple((level, part) for level, part in found["edge"])
    return Facts(**found)


def keep_facts(connection: sqlite3.Connection, **changed: Any) -> None:
    """Change what an index says of itself."""
    connection.executemany(
        "INSERT OR REPLACE INTO facts VALUES (?, ?)", [(name, json.dumps(value)) for name, value in changed.items()]
    )


def insert(connection: sqlite3.Connection, rows: Iterable[Row]) -> None:
    """Put rows in, in place of others with their indices."""
    connection.executemany(_INSERT, (row.values for row in rows))


def forget_from(connection: sqlite3.Connection, idx: int) -> None:
    """Remove what came from the inbox alone: the log says it again, and better."""
    connection.execute("DELETE FROM verdicts WHERE idx >= ?", (idx,))


# Half of the rows belong to the DAGs that Airflow knows, the same share to each, of what was refused and of what was
# not: who floods the log with verdicts of one task, or of DAGs that he makes up, drives nobody else's out.
_KEPT = """
SELECT idx FROM (
  SELECT idx, owner, row_number() OVER (
    PARTITION BY owner, outcome IN ('failed', 'unverifiable', 'error') ORDER BY idx DESC) AS place FROM verdicts)
ORDER BY place <= :share AND (:known IS NULL OR owner IN (SELECT value FROM json_each(:known))) DESC, idx DESC
LIMIT :most
"""


def forget_oldest(connection: sqlite3.Connection, most: int, known: Callable[[], Iterable[str]] | None = None) -> int:
    """Remove the oldest rows beyond the most that are kept, when a tenth more is there.

    Args:
        connection: The index.
        most: How many are kept.
        known: Says which DAGs Airflow knows; without it, all are treated alike.

    Returns:
        How many were removed.
    """
    (count,) = connection.execute("SELECT count(*) FROM verdicts").fetchone()
    if count <= most + most // 10:
        return 0
    owners = sorted(known()) if known is not None else None
    among = connection.execute("SELECT count(DISTINCT owner) FROM verdicts").fetchone()[0]
    share = max(1, most // (4 * max(1, len(owners) if owners is not None else among)))
    values = {"share": share, "known": None if owners is None else json.dumps(owners), "most": most}
    return connection.execute(f"DELETE FROM verdicts WHERE idx NOT IN ({_KEPT})", values).rowcount  # noqa: S608


def read_rows(connection: sqlite3.Connection, where: str, values: Mapping[str, Any]) -> list[Row]:
    """Return rows.

    Args:
        connection: The index.
        where: What follows the table's name: conditions with named values, order and limit.
        values: The values.
    """
    text = f"SELECT {', '.join(COLUMNS)} FROM verdicts {where}"  # noqa: S608 - ours; values are bound
    return [Row.read(item) for item in connection.execute(text, dict(values))]


def _prepare(connection: sqlite3.Connection) -> None:
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'refused'").fetchone():
        return
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            # To change the mode SQLite waits for nobody.
            connection.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    connection.executescript(f"BEGIN IMMEDIATE; {_TABLES} COMMIT;")


def _unavailable(path: str, error: Exception) -> UnavailableError:
    return UnavailableError(
        f"The index {printable(path)} cannot be used: {printable(error)}.",
        code="BACKEND_UNAVAILABLE",
        next_step="Give the API server a folder of its own on a local disk: [sealflow] pages_state.",
    )


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[:limit] + "…"


def _number(value: int) -> int:
    # The log's form bounds no number; SQLite's has 64 bits.
    return max(-1, min(value, 2**31))


def _listed(items: Sequence[str]) -> tuple[str, ...]:
    # Joined with spaces in the table, so none may hold one.
    return tuple("_".join(_cut(item, _MAX_NAME // 4).split()) or "_" for item in items[:_MAX_LISTED])


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split(" ")) if text else ()
