"""What is the database's own: rights, durability, a server that goes away."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator

import pytest

from sealflow.audit import inbox_postgresql
from sealflow.audit.inbox import SquattedError
from sealflow.audit.inbox_postgresql import PostgresqlInbox, setup_sql
from sealflow.errors import EvidenceError, UnavailableError, UsageError
from tests.core.audit.chains import chain, forged, log_of
from tests.servers.postgresql import PostgresqlServer

Opened = Callable[..., PostgresqlInbox]


@pytest.fixture
def database(postgresql: PostgresqlServer, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in postgresql.environment.items():
        monkeypatch.setenv(name, value)
    return postgresql.make_database()


@pytest.fixture
def opened(postgresql: PostgresqlServer, database: str) -> Iterator[Opened]:
    """Opens the inbox as one of the roles; the owner's makes the tables."""
    made = []

    def again(role: str) -> PostgresqlInbox:
        made.append(PostgresqlInbox(postgresql.uri(database, role)))
        return made[-1]

    again("admin").set_up(["writer"], ["integrator"])
    yield again
    for inbox in made:
        inbox.close()


def test_writers_and_integrators_can_do_their_work(opened: Opened) -> None:
    writer, integrator = opened("writer"), opened("integrator")
    entries = chain(5)
    writer.put(entries[:1])
    writer.put(entries)
    writer.put(entries[4:])
    assert log_of(integrator) == [entry.line for entry in entries]
    assert writer.index_of(entries[0].writer, 4) == 4
    other = chain(2)
    writer.put([forged(other[1])])
    with pytest.raises(SquattedError):
        writer.put(other)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT line FROM sealflow_audit.entries",
        "UPDATE sealflow_audit.entries SET line = ''",
        "UPDATE sealflow_audit.entries SET idx = 0",
        "UPDATE sealflow_audit.entries SET code = 'AUDIT_CHAIN'",
        "DELETE FROM sealflow_audit.entries",
        "TRUNCATE sealflow_audit.entries",
        "INSERT INTO sealflow_audit.entries (writer, n, line, idx) VALUES (repeat('0', 64), 0, 'x', 0)",
        "INSERT INTO sealflow_audit.entries (writer, n, line, code) VALUES (repeat('0', 64), 0, 'x', 'x')",
        "INSERT INTO sealflow_audit.entries (id, writer, n, line) VALUES (1, repeat('0', 64), 0, 'x')",
        "INSERT INTO sealflow_audit.entries (writer, n, line) VALUES (repeat('0', 64), 0, 'x')"
        " ON CONFLICT (writer, n) DO UPDATE SET line = 'y'",
        "DROP TABLE sealflow_audit.entries",
        "ALTER TABLE sealflow_audit.entries ADD COLUMN x int",
        "CREATE TABLE sealflow_audit.mine ()",
    ],
)
def test_a_writer_may_do_nothing_else(
    opened: Opened, postgresql: PostgresqlServer, database: str, statement: str
) -> None:
    import psycopg

    opened("writer").put(chain(1))
    with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.GeneratedAlways)):
        postgresql.execute(database, statement, role="writer")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE sealflow_audit.entries SET line = ''",
        "DELETE FROM sealflow_audit.entries",
        "TRUNCATE sealflow_audit.entries",
        "INSERT INTO sealflow_audit.entries (writer, n, line) VALUES (repeat('0', 64), 0, 'x')",
    ],
)
def test_an_integrator_alters_no_entry(
    opened: Opened, postgresql: PostgresqlServer, database: str, statement: str
) -> None:
    import psycopg

    opened("writer").put(chain(1))
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        postgresql.execute(database, statement, role="integrator")


def test_who_has_no_right_is_told_so(postgresql: PostgresqlServer, opened: Opened) -> None:
    with pytest.raises(UnavailableError) as caught:
        opened("integrator").put(chain(1))
    assert caught.value.code == "PERMISSION_DENIED"


def test_without_tables_it_says_what_to_do(postgresql: PostgresqlServer, database: str) -> None:
    inbox = PostgresqlInbox(postgresql.uri(database))
    with pytest.raises(UnavailableError) as caught:
        inbox.put(chain(1))
    assert "sealflow audit inbox init" in caught.value.next_step
    inbox.set_up()
    inbox.set_up()
    inbox.put(chain(1))
    inbox.close()


def test_a_role_is_quoted() -> None:
    assert '"a""; DROP TABLE x; --"' in setup_sql(['a"; DROP TABLE x; --'])
    for name in ("", "a\nb", "x" * 64):
        with pytest.raises(UsageError):
            setup_sql([name])


def test_a_commit_is_on_the_disk_whatever_the_role_prefers(
    opened: Opened, postgresql: PostgresqlServer, database: str
) -> None:
    postgresql.execute("postgres", f"ALTER ROLE writer IN DATABASE {database} SET synchronous_commit = off")
    postgresql.execute(
        "postgres",
        f"ALTER ROLE writer IN DATABASE {database} SET default_transaction_isolation = 'serializable'",
    )
    writer = opened("writer")
    writer.put(chain(1))
    assert writer._connection.execute("SHOW synchronous_commit").fetchone() == ("on",)
    assert writer._connection.execute("SHOW transaction_isolation").fetchone() == ("serializable",)
    with writer._connection.transaction():
        assert writer._connection.execute("SHOW transaction_isolation").fetchone() == ("read committed",)


def test_a_server_that_goes_away_loses_nothing_and_is_found_again(opened: Opened, postgresql: PostgresqlServer) -> None:
    writer, integrator = opened("writer"), opened("integrator")
    first, second = chain(3), chain(2)
    writer.put(first)
    assert integrator.sequence(2) == 2
    postgresql.stop()
    try:
        for inbox, do in ((writer, lambda: writer.put(second)), (integrator, lambda: integrator.sequence(9))):
            with pytest.raises(UnavailableError) as caught:
                do()
            assert caught.value.code == "AUDIT_UNAVAILABLE"
            assert inbox.uri in caught.value.message
    finally:
        postgresql.start()
    writer.put(second)
    assert log_of(integrator) == [entry.line for entry in first + second]


def test_a_connection_that_died_meanwhile_is_made_anew(opened: Opened, postgresql: PostgresqlServer) -> None:
    writer = opened("writer")
    first, second = chain(1), chain(1)
    writer.put(first)
    postgresql.stop()
    postgresql.start()
    writer.put(second)
    assert len(log_of(opened("integrator"))) == 2


def test_a_fork_makes_a_connection_of_its_own(opened: Opened) -> None:
    writer = opened("writer")
    first, second = chain(1), chain(1)
    writer.put(first)
    if (child := os.fork()) == 0:
        try:
            writer.put(second)
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    writer.put(first)
    assert len(log_of(opened("integrator"))) == 2


def test_who_commits_later_than_another_began_is_not_forgotten(
    opened: Opened, postgresql: PostgresqlServer, database: str
) -> None:
    """The trap of a cursor over a sequence: the lower number becomes visible after the higher one was read."""
    import psycopg

    late, early = chain(1), chain(1)
    integrator = opened("integrator")
    with psycopg.connect(postgresql.uri(database, "writer")) as slow:
        slow.execute(
            "INSERT INTO sealflow_audit.entries (writer, n, line) VALUES (%s, 0, %s)", (late[0].writer, late[0].line)
        )
        opened("writer").put(early)
        assert log_of(integrator) == [early[0].line]
        slow.commit()
    assert log_of(integrator) == [early[0].line, late[0].line]


def test_several_integrators_wait_for_one_another(opened: Opened) -> None:
    chains = [chain(40) for _ in range(5)]
    for entries in chains:
        opened("writer").put(entries)
    done: list[int] = []

    def sequence(inbox: PostgresqlInbox) -> None:
        while found := inbox.sequence(7):
            done.append(found)

    threads = [threading.Thread(target=sequence, args=(opened("integrator"),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(done) == 200
    assert len(log_of(opened("integrator"))) == 200


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT pg_advisory_lock(8315159405212233591)",  # "sealflow" in ASCII: once the integrators' own
        "SELECT FROM sealflow_audit.turn FOR UPDATE",
        "LOCK TABLE sealflow_audit.turn",
        "LOCK TABLE sealflow_audit.entries IN SHARE MODE",
        "SELECT n FROM sealflow_audit.entries FOR KEY SHARE",
        "INSERT INTO sealflow_audit.entries (writer, n, line) VALUES (repeat('0', 64), 0, 'x')",
    ],
)
def test_a_writer_cannot_keep_integrators_waiting(
    opened: Opened, postgresql: PostgresqlServer, database: str, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    import psycopg

    monkeypatch.setattr(inbox_postgresql, "PATIENCE", 3)
    opened("writer").put(chain(2))
    with psycopg.connect(postgresql.uri(database, "writer")) as hostile:
        with contextlib.suppress(psycopg.errors.InsufficientPrivilege):
            hostile.execute(statement)  # in a transaction that stays open
        assert opened("integrator").sequence(10) == 2


@pytest.mark.parametrize("count", [1, 3])
def test_a_slot_that_somebody_holds_without_end_is_squatted(
    opened: Opened, postgresql: PostgresqlServer, database: str, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    import psycopg

    monkeypatch.setattr(inbox_postgresql, "_FOR_OTHERS", 1)
    entries = chain(count)
    with psycopg.connect(postgresql.uri(database, "writer")) as hostile:
        # Who sees the rows of others knows which slot comes next.
        hostile.execute(
            "INSERT INTO sealflow_audit.entries (writer, n, line) VALUES (%s, %s, 'x')", (entries[0].writer, count - 1)
        )
        with pytest.raises(SquattedError) as caught:
            opened("writer").put(entries)
        assert caught.value.n == count - 1
        assert log_of(opened("integrator")) == [entry.line for entry in entries[:-1]]
        hostile.rollback()
    opened("writer").put(entries)
    assert log_of(opened("integrator")) == [entry.line for entry in entries]


@pytest.mark.parametrize("gone", ["idx = 1", "idx < 2", "idx IN (0, 1, 2, 3)"])
def test_rows_that_are_gone_are_no_end(opened: Opened, postgresql: PostgresqlServer, database: str, gone: str) -> None:
    opened("writer").put(chain(6))
    integrator = opened("integrator")
    assert integrator.sequence(10) == 6
    postgresql.execute(database, f"DELETE FROM sealflow_audit.entries WHERE {gone}")
    with pytest.raises(EvidenceError) as caught:
        integrator.sequenced(0, 2)
    assert caught.value.code == "LOG_FORKED"
