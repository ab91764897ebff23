"""An inbox in PostgreSQL, for writers on many machines.

Writers insert rows and may do nothing else: they see neither the lines of others nor their own. Nobody takes numbers
from a counter while writers wait, and no cursor runs over a sequence: numbers of a sequence become visible in another
order than they were given, so a reader who remembers the last one misses those that commit later. An integrator looks
for rows without an index, when it is its turn: it locks a row that writers have no right to lock. An advisory lock
would be anybody's who may connect.

Passwords never stand in a location: libpq finds them (``PGPASSFILE``, service files, certificates, GSSAPI).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from datetime import timezone
from typing import Any, Final, TypeVar

from sealflow.audit.entry import Entry
from sealflow.audit.inbox import BATCH, Inbox, Refusal, SquattedError, Waiting, checked, forked, unavailable
from sealflow.audit.sequencing import PARKED, in_order_of_arrival, rows_admitted, rows_parked, rows_woken
from sealflow.errors import MissingExtraError, UnavailableError, UsageError
from sealflow.findings import printable

_Result = TypeVar("_Result")

#: How long to wait for an answer, in seconds.
PATIENCE: Final = 30

# How long to wait for somebody who holds a slot and does not commit, in seconds; and how long our own transactions stay
# open when we die in one, so that nobody takes us for such a one.
_FOR_OTHERS = 20
_OUR_OWN = 10

#: Settings of libpq that a location may hold.
_SETTINGS: Final = frozenset(
    {"connect_timeout", "dbname", "host", "port", "service", "sslcert", "sslkey", "sslmode", "sslrootcert"}
    | {"target_session_attrs", "user"}
)

_TABLES: Final = """\
CREATE SCHEMA IF NOT EXISTS sealflow_audit;
CREATE TABLE IF NOT EXISTS sealflow_audit.entries (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  writer text COLLATE "C" NOT NULL CHECK (writer ~ '^[0-9a-f]{64}$'),
  n bigint NOT NULL CHECK (n >= 0),
  line bytea NOT NULL CHECK (octet_length(line) <= 65535),
  hash text COLLATE "C" GENERATED ALWAYS AS (encode(sha256('\\x00'::bytea || line), 'hex')) STORED,
  idx bigint UNIQUE,
  code text,
  recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  UNIQUE (writer, n)
);
CREATE INDEX IF NOT EXISTS entries_waiting ON sealflow_audit.entries (id) WHERE idx IS NULL AND code IS NULL;
CREATE INDEX IF NOT EXISTS entries_parked ON sealflow_audit.entries (id) WHERE code = 'AUDIT_WAITING';
CREATE TABLE IF NOT EXISTS sealflow_audit.turn (one boolean PRIMARY KEY DEFAULT true CHECK (one));
INSERT INTO sealflow_audit.turn DEFAULT VALUES ON CONFLICT DO NOTHING;
REVOKE ALL ON SCHEMA sealflow_audit FROM PUBLIC;
REVOKE ALL ON sealflow_audit.entries, sealflow_audit.turn FROM PUBLIC;
"""

_GRANT_WRITER: Final = """\
GRANT USAGE ON SCHEMA sealflow_audit TO {role};
GRANT INSERT (writer, n, line), SELECT (writer, n, hash, idx) ON sealflow_audit.entries TO {role};
"""

_GRANT_INTEGRATOR: Final = """\
GRANT USAGE ON SCHEMA sealflow_audit TO {role};
GRANT SELECT, UPDATE (idx, code) ON sealflow_audit.entries TO {role};
GRANT SELECT, UPDATE (one) ON sealflow_audit.turn TO {role};
"""

_PUT = """
INSERT INTO sealflow_audit.entries (writer, n, line)
SELECT * FROM unnest(%s::text[], %s::bigint[], %s::bytea[]) ON CONFLICT DO NOTHING
"""

# For one entry, which is most often what a writer puts: half the work of the above for both sides.
_PUT_ONE = """
INSERT INTO sealflow_audit.entries (writer, n, line) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING
"""

_HELD = """
SELECT e.writer, e.n, e.hash FROM sealflow_audit.entries e
JOIN unnest(%s::text[], %s::bigint[]) AS asked (writer, n) ON e.writer = asked.writer AND e.n = asked.n
"""

_WAITING = """
SELECT e.id, e.writer, e.n, e.line, b.idx, nullif(b.code, 'AUDIT_WAITING'), b.hash
FROM sealflow_audit.entries e LEFT JOIN sealflow_audit.entries b ON b.writer = e.writer AND b.n = e.n - 1
WHERE e.idx IS NULL AND e.code IS NULL AND e.id > %s ORDER BY e.id LIMIT %s
"""

_REFUSE = """
UPDATE sealflow_audit.entries e SET code = given.code
FROM unnest(%s::bigint[], %s::text[]) AS given (id, code) WHERE e.id = given.id
"""

_WAKE = """
UPDATE sealflow_audit.entries e SET code = NULL
FROM unnest(%s::text[], %s::bigint[], %s::bigint[]) AS given (writer, n, last)
WHERE e.writer = given.writer AND e.n > given.n AND e.n <= given.last AND e.code = 'AUDIT_WAITING'
"""

_PARKED = """
SELECT (SELECT count(*) FROM sealflow_audit.entries WHERE code = 'AUDIT_WAITING'), writer, n, recorded_at
FROM sealflow_audit.entries WHERE code = 'AUDIT_WAITING' ORDER BY id LIMIT 1
"""

# A commit must be on the disk when it returns, whatever the server's default is; stronger settings stay.
_SESSION = """
SELECT set_config('statement_timeout', %s, false),
  set_config('idle_in_transaction_session_timeout', %s, false),
  set_config('lock_timeout', %s, false),
  CASE WHEN current_setting('synchronous_commit') IN ('off', 'local')
    THEN set_config('synchronous_commit', 'on', false) END,
  current_setting('fsync')
"""

_SIZE = "SELECT coalesce(max(idx), -1) + 1 FROM sealflow_audit.entries"


def setup_sql(writers: Sequence[str] = (), integrators: Sequence[str] = ()) -> str:
    """Return the statements that make the tables and give roles what they need, and no more.

    Raises:
        UsageError: This is no name of a role.
    """
    parts = [_TABLES]
    for grants, roles in ((_GRANT_WRITER, writers), (_GRANT_INTEGRATOR, integrators)):
        for role in roles:
            if not role or len(role.encode()) > 63 or printable(role) != role:
                raise UsageError(f"{printable(role)!r} is no name of a role.")
            quoted = '"' + role.replace('"', '""') + '"'
            parts.append(grants.format(role=quoted))
    return "\n".join(parts)


class PostgresqlInbox(Inbox):
    """See the module and :class:`~sealflow.audit.inbox.Inbox`.

    Args:
        uri: ``postgresql://[user@]host[:port]/database[?sslmode=…]``, without a password.
    """

    def __init__(self, uri: str) -> None:
        self.uri = _checked(uri)
        self.refusals: list[Refusal] = []
        self._lock = threading.Lock()
        self._connection: Any = None
        self._process = os.getpid()

    def set_up(self, writers: Sequence[str] = (), integrators: Sequence[str] = ()) -> None:
        """Make the tables and give roles their rights; what is there already stays."""
        statements = setup_sql(writers, integrators)
        self._run(lambda connection: connection.execute(statements))

    def put(self, entries: Sequence[Entry]) -> None:
        """See :class:`~sealflow.audit.inbox.Inbox`."""
        entries = checked(entries)
        for start in range(0, len(entries), BATCH):
            some = entries[start : start + BATCH]
            squatted = self._run(lambda connection: _put(connection, some))  # noqa: B023
            if squatted is not None:
                raise SquattedError(squatted.writer, squatted.n, self.uri)

    def sequence(self, limit: int) -> int:
        """See :class:`~sealflow.audit.inbox.Inbox`."""
        after = 0
        while True:
            found = self._run(lambda connection: _sequence(connection, after, limit))  # noqa: B023
            if found is None:
                return 0
            taken, refused, after = found
            # Rows that wait for one that is not there are parked, and not read again before their chain goes on.
            self.refusals += refused
            if taken:
                return taken
            # Nothing of these can be taken yet, which must not hide what came later.

    def waiting(self) -> Waiting:
        """See :class:`~sealflow.audit.inbox.Inbox`."""
        row = self._row(_PARKED, ())
        if row is None:
            return Waiting()
        count, writer, n, came = row
        return Waiting(count, f"{writer}/{n}", came.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"))

    def size(self) -> int:
        """See :class:`~sealflow.audit.inbox.Inbox`."""
        return int(self._run(lambda connection: connection.execute(_SIZE).fetchone()[0]))

    def sequenced(self, start: int, count: int) -> list[bytes]:
        """See :class:`~sealflow.audit.inbox.Inbox`."""
        size = self.size()
        rows = self._run(
            lambda connection: connection.execute(
                "SELECT line, idx FROM sealflow_audit.entries WHERE idx >= %s AND idx < %s ORDER BY idx",
                (start, start + count),
                binary=True,
            ).fetchall()
        )
        # More may have come since the size was asked.
        least = min(count, max(0, size - start))
        if [index for _, index in rows] != list(range(start, start + max(len(rows), least))):
            raise forked(self.uri, f"entries with an index from {start} on are gone")
        return [bytes(line) for line, _ in rows]

    def last_hash(self, size: int) -> str:
        """See :class:`~sealflow.audit.inbox.Inbox`."""
        row = self._row("SELECT hash FROM sealflow_audit.entries WHERE idx = %s", (size - 1,))
        if row is None:
            raise forked(self.uri, f"the log has {size} entries, more than the inbox put in order")
        return str(row[0])

    def published(self, start: int, size: int) -> None:
        """See :class:`~sealflow.audit.inbox.Inbox`. The rows stay: they answer what is put again."""

    def index_of(self, writer: str, n: int) -> int | None:
        """See :class:`~sealflow.audit.inbox.Inbox`."""
        row = self._row("SELECT idx FROM sealflow_audit.entries WHERE writer = %s AND n = %s", (writer, n))
        return row[0] if row is not None else None

    def close(self) -> None:
        """See :class:`~sealflow.audit.inbox.Inbox`."""
        with self._lock:
            self._drop()

    def _row(self, query: str, values: tuple[object, ...]) -> Any:
        return self._run(lambda connection: connection.execute(query, values).fetchone())

    def _run(self, work: Callable[[Any], _Result]) -> _Result:
        """Do what can be done twice, as everything here can; once more where an old connection turns out to be dead."""
        import psycopg

        if self._process != os.getpid():
            # The parent's connection; closing it here would say good-bye to the server in its name.
            _OF_PARENTS.append(self._connection)
            self._connection, self._lock, self._process = None, threading.Lock(), os.getpid()
        with self._lock:
            old = self._connection is not None
            while True:
                try:
                    return work(self._connection or self._open())
                except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                    self._drop()
                    if not old:
                        raise self._translate(error) from None
                    old = False
                except psycopg.Error as error:
                    self._drop()
                    raise self._translate(error) from None
                except BaseException:
                    self._drop()
                    raise

    def _open(self) -> Any:
        import psycopg

        # A server that vanished is noticed by the unanswered packets.
        waits: dict[str, Any] = {"tcp_user_timeout": 1000 * PATIENCE, "application_name": "sealflow"}
        if "connect_timeout" not in self.uri:
            waits["connect_timeout"] = 10
        connection = psycopg.connect(self.uri, autocommit=True, **waits)
        self._connection = connection
        # A stronger level would look at the table as it was before the lock was given.
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        patience = [f"{seconds}s" for seconds in (PATIENCE, _OUR_OWN, _FOR_OTHERS)]
        settings: Any = connection.execute(_SESSION, patience).fetchone()
        if settings[-1] != "on":
            self._drop()
            raise unavailable(
                self.uri, "the server runs with fsync=off, so a commit says nothing", next_step="Turn fsync on."
            )
        return connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _translate(self, error: Any) -> UnavailableError:
        from psycopg import errors

        said = " ".join(str(error).split())
        if isinstance(error, (errors.UndefinedTable, errors.InvalidSchemaName)):
            step = f"Let its owner make the tables: sealflow audit inbox init --inbox {printable(self.uri)}"
            return unavailable(self.uri, "it has no tables", next_step=step)
        if isinstance(error, errors.InsufficientPrivilege):
            step = "Give this role what `sealflow audit inbox init --sql` prints."
            return unavailable(self.uri, said, code="PERMISSION_DENIED", next_step=step)
        if isinstance(error, errors.DiskFull):
            return unavailable(self.uri, said, code="NO_SPACE", next_step="Make room on the server.")
        return unavailable(self.uri, said)


_OF_PARENTS: list[Any] = []


def _checked(uri: str) -> str:
    try:
        from psycopg import ProgrammingError
        from psycopg.conninfo import conninfo_to_dict
    except ImportError:
        raise MissingExtraError("An inbox in PostgreSQL", "postgresql") from None
    # No refusal repeats what was given: a password may stand anywhere in it.
    try:
        named = conninfo_to_dict(uri)
    except ProgrammingError:
        raise UsageError(
            "The location of the audit inbox is none that PostgreSQL's library reads.",
            next_step="Write postgresql://user@host:port/database.",
        ) from None
    if "password" in named:
        raise UsageError(
            "The location of the audit inbox holds a password.",
            code="SECRET_IN_LOCATION",
            next_step="Take it out, change it, and name a file of passwords in PGPASSFILE.",
        )
    if unknown := named.keys() - _SETTINGS:
        raise UsageError(
            f"The location of the audit inbox has the setting {printable(min(unknown), 40)}.",
            next_step=f"Leave it out; these are known: {', '.join(sorted(_SETTINGS))}.",
        )
    if not named.get("dbname") and not named.get("service"):
        raise UsageError(
            "The location of the audit inbox names no database.", next_step="Write postgresql://host/database."
        )
    return uri


def _put(connection: Any, entries: Sequence[Entry]) -> Entry | None:
    """Insert rows; return the first entry whose slot others hold, and then insert only those before it."""
    from psycopg import errors

    try:
        return _put_all(connection, entries)
    except errors.LockNotAvailable:
        # Somebody has put another row into one of the slots, and neither commits nor goes away.
        for entry in entries:
            try:
                if _put_all(connection, [entry]) is not None:
                    return entry
            except errors.LockNotAvailable:
                return entry
    return None


def _put_all(connection: Any, entries: Sequence[Entry]) -> Entry | None:
    import psycopg

    if len(entries) == 1:
        # One statement is one transaction, and one answer.
        [entry] = entries
        if connection.execute(_PUT_ONE, (entry.writer, entry.n, entry.line), prepare=True).rowcount == 1:
            return None
        return _squatted(connection, entries)
    found = None
    with connection.transaction() as transaction:
        if _insert(connection, entries) < len(entries) and (found := _squatted(connection, entries)):
            raise psycopg.Rollback(transaction)
    if found is not None:
        _insert(connection, entries[: entries.index(found)])
    return found


def _insert(connection: Any, entries: Sequence[Entry]) -> int:
    columns = ([one.writer for one in entries], [one.n for one in entries], [one.line for one in entries])
    return int(connection.execute(_PUT, columns, binary=True).rowcount)


def _squatted(connection: Any, entries: Sequence[Entry]) -> Entry | None:
    slots = ([one.writer for one in entries], [one.n for one in entries])
    held = {(writer, n): found for writer, n, found in connection.execute(_HELD, slots)}
    return next((one for one in entries if held.get((one.writer, one.n)) != one.hash), None)


def _sequence(connection: Any, after: int, limit: int) -> tuple[int, list[Refusal], int] | None:
    with connection.transaction():
        # At most one at a time; a transaction that dies gives it back.
        connection.execute("SELECT FROM sealflow_audit.turn FOR UPDATE")
        rows = connection.execute(_WAITING, (after, limit), binary=True).fetchall()
        if not rows:
            return None
        ids = {(writer, n): number for number, writer, n, *_ in rows}
        admitted = rows_admitted([row[1:] for row in rows])
        taken = in_order_of_arrival(admitted.values(), ids)
        start = connection.execute(_SIZE).fetchone()[0]
        connection.execute(
            "UPDATE sealflow_audit.entries e SET idx = given.idx"
            " FROM unnest(%s::bigint[], %s::bigint[]) AS given (id, idx) WHERE e.id = given.id",
            ([ids[entry.writer, entry.n] for entry in taken], list(range(start, start + len(taken)))),
        )
        refused = [(writer, n, code) for writer, one in admitted.items() for n, code in one.refused]
        parked = [(*slot, PARKED) for slot in rows_parked(ids, admitted)]
        if coded := refused + parked:
            connection.execute(_REFUSE, ([ids[writer, n] for writer, n, _ in coded], [code for *_, code in coded]))
        woken = 0
        if going_on := rows_woken(admitted, limit):
            woken = connection.execute(_WAKE, [list(column) for column in zip(*going_on, strict=True)]).rowcount
    after = 0 if woken else rows[-1][0]
    return len(taken), [Refusal(f"{writer}/{n}", code) for writer, n, code in refused], after
