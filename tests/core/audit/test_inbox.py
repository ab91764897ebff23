"""What holds for every inbox, tried on each."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sealflow.audit.entry import Chain
from sealflow.audit.inbox import Inbox, SquattedError, open_inbox
from sealflow.audit.inbox_postgresql import PostgresqlInbox
from sealflow.audit.inbox_sqlite import SqliteInbox
from sealflow.errors import EvidenceError, UsageError
from sealflow.storage import Storages
from tests.core.audit.chains import chain, forged, log_of

Opened = Callable[[], Inbox]

SQLITE = "sqlite"
POSTGRESQL = pytest.param("postgresql", marks=[pytest.mark.server, pytest.mark.xdist_group("postgresql")])

OBJECTS = pytest.param("objects", marks=[pytest.mark.server, pytest.mark.xdist_group("s3")])
#: Where a slot can be taken: the name of an object fixes its bytes.
with_slots = pytest.mark.parametrize("opened", [SQLITE, POSTGRESQL], indirect=True)


@pytest.fixture(params=[SQLITE, POSTGRESQL, OBJECTS])
def opened(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opened]:
    """Opens the same inbox again and again, as so many processes would."""
    uri = f"sqlite:{tmp_path}/inbox.db"
    if request.param == "postgresql":
        server = request.getfixturevalue("postgresql")
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        uri = server.uri(server.make_database())
        owner = PostgresqlInbox(uri)
        owner.set_up()
        owner.close()
    storages = Storages()
    if request.param == "objects":
        server = request.getfixturevalue("s3_server")
        uri = f"s3://{server.make_bucket()}/audit"
        storages = Storages(server.client())
    made = []

    def again() -> Inbox:
        made.append(open_inbox(uri, storages))
        return made[-1]

    yield again
    for inbox in made:
        inbox.close()


@pytest.fixture
def inbox(opened: Opened) -> Inbox:
    return opened()


# --- Putting ---


def test_what_was_put_comes_out_once_and_in_the_order_of_its_chain(inbox: Inbox) -> None:
    first, second = chain(5), chain(3)
    inbox.put(first[:2])
    inbox.put(second)
    inbox.put(first[2:])
    lines = log_of(inbox)
    assert sorted(lines) == sorted(entry.line for entry in first + second)
    for entries in (first, second):
        places = [lines.index(entry.line) for entry in entries]
        assert places == sorted(places)
        assert [inbox.index_of(entry.writer, entry.n) for entry in entries] == places
    assert inbox.refusals == []


def test_the_same_again_is_a_success_and_changes_nothing(inbox: Inbox, opened: Opened) -> None:
    entries = chain(4)
    inbox.put(entries[:3])
    inbox.put(entries[:3])
    opened().put(entries)
    assert log_of(inbox) == [entry.line for entry in entries]
    # Also long after they were put in order, one by one, and in another grouping.
    for entry in entries:
        opened().put([entry])
    opened().put(entries[1:3])
    assert log_of(inbox) == [entry.line for entry in entries]
    assert inbox.refusals == []


def test_nothing_is_put_of_nothing(inbox: Inbox) -> None:
    inbox.put([])
    assert log_of(inbox) == []
    assert inbox.index_of("0" * 64, 0) is None


@pytest.mark.parametrize(
    "change",
    [
        {"line": b"sealflow-audit/v1 nonsense"},
        {"line": b""},
        {"n": 7},
        {"writer": "0" * 64},
        {"prev": "1" * 64},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_is_no_entry_is_not_put(inbox: Inbox, change: dict) -> None:
    entries = chain(2)
    with pytest.raises(EvidenceError) as caught:
        inbox.put([entries[0], entries[1]._replace(**change)])
    assert caught.value.code == "AUDIT_MALFORMED"
    assert log_of(inbox) == []


def test_what_is_too_large_is_not_put(inbox: Inbox) -> None:
    [entry] = chain(1)
    large = entry.line.replace(b"{", b'{"a":"' + b"x" * 65_600 + b'",', 1)
    with pytest.raises(EvidenceError):
        inbox.put([entry._replace(line=large, event=large.split(b" ")[4])])


def test_a_full_entry_fits(inbox: Inbox) -> None:
    entries = chain(2, b'{"a":"' + b"x" * (60 << 10) + b'"}')
    inbox.put(entries)
    assert log_of(inbox) == [entry.line for entry in entries]


# --- Attacks ---


@with_slots
def test_the_owner_of_a_squatted_slot_is_told_which_and_what_came_before_is_kept(inbox: Inbox, opened: Opened) -> None:
    entries = chain(4)
    opened().put([forged(entries[2])])
    with pytest.raises(SquattedError) as caught:
        inbox.put(entries)
    assert (caught.value.code, caught.value.writer, caught.value.n) == ("AUDIT_SQUATTED", entries[0].writer, 2)
    assert log_of(inbox) == [entry.line for entry in entries[:2]]
    assert {(refusal.where, refusal.code) for refusal in inbox.refusals} == {
        (f"{entries[0].writer}/2", "AUDIT_SIGNATURE")
    }


@with_slots
def test_a_squatted_first_slot_gives_nothing(inbox: Inbox) -> None:
    entries = chain(2)
    inbox.put([forged(entries[0])])
    with pytest.raises(SquattedError):
        inbox.put(entries)
    assert log_of(inbox) == []


@with_slots
def test_a_chain_of_another_key_is_left_out_and_blocks_nobody(inbox: Inbox) -> None:
    victim, honest = chain(3), chain(3)
    inbox.put([forged(entry) for entry in victim])
    inbox.put(honest)
    assert log_of(inbox) == [entry.line for entry in honest]
    assert {refusal.code for refusal in inbox.refusals} <= {"AUDIT_SIGNATURE", "AUDIT_CHAIN"}
    assert len(inbox.refusals) == 3
    # It is reported once, and looked at no more.
    assert inbox.sequence(100) == 0
    assert len(inbox.refusals) == 3


@with_slots
def test_an_entry_that_does_not_continue_its_chain_is_left_out(inbox: Inbox) -> None:
    writer = Chain()
    first = writer.add(b"{}")
    writer._prev = "1" * 64
    inbox.put([first, writer.add(b"{}"), writer.add(b"{}")])
    assert log_of(inbox) == [first.line]
    assert [refusal.code for refusal in inbox.refusals] == ["AUDIT_CHAIN"] * 2


@with_slots
def test_what_hangs_on_a_refused_entry_is_refused_whenever_it_comes(inbox: Inbox) -> None:
    entries = chain(3)
    inbox.put([forged(entries[0])])
    assert log_of(inbox) == []
    inbox.put([entries[1]])
    inbox.put([entries[2]])
    assert log_of(inbox) == []
    assert [refusal.code for refusal in inbox.refusals] == ["AUDIT_SIGNATURE", "AUDIT_CHAIN", "AUDIT_CHAIN"]


# --- Order ---


def test_what_misses_its_predecessor_waits(inbox: Inbox) -> None:
    entries, other = chain(4), chain(2)
    inbox.put(entries[2:])
    inbox.put([entries[0]])
    inbox.put(other)
    # Which of two writers comes first is the inbox's to say: S3 lists them by name.
    assert sorted(log_of(inbox)) == sorted(entry.line for entry in [entries[0], *other])
    assert inbox.index_of(entries[3].writer, 3) is None
    inbox.put([entries[1]])
    assert log_of(inbox)[3:] == [entry.line for entry in entries[1:]]
    assert inbox.refusals == []


def test_waiting_entries_hide_nothing_behind_them(inbox: Inbox) -> None:
    waiting = [chain(2)[1] for _ in range(7)]
    for entry in waiting:
        inbox.put([entry])
    entries = chain(3)
    inbox.put(entries)
    assert inbox.sequence(2) > 0
    assert log_of(inbox) == [entry.line for entry in entries]


def test_what_waits_is_counted_and_not_read_again(inbox: Inbox, opened: Opened) -> None:
    """Whoever may write could otherwise make every run of every integrator as long as he likes."""
    first, *others = chain(30)
    strangers = [chain(2)[1] for _ in range(10)]
    inbox.put(others)
    for entry in strangers:
        inbox.put([entry])
    assert inbox.sequence(100) == 0
    assert inbox.waiting().entries == 39
    assert inbox.waiting().oldest.partition("/")[0] in {entry.writer for entry in [first, *strangers]}
    reader = opened()
    assert log_of(reader) == []
    assert reader.waiting() == inbox.waiting()
    # The one that is missing wakes all that hang on it, and nothing else.
    inbox.put([first])
    assert log_of(opened()) == [entry.line for entry in [first, *others]]
    last = opened()
    assert last.sequence(100) == 0
    assert last.waiting().entries == 10
    assert last.refusals == []


@with_slots
def test_rows_that_wait_are_read_once(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    from sealflow.audit import inbox_postgresql, inbox_sqlite

    inbox = opened()
    read: list[int] = []
    for module in (inbox_postgresql, inbox_sqlite):
        judge = module.rows_admitted
        monkeypatch.setattr(module, "rows_admitted", lambda rows, judge=judge: [read.append(len(rows)), judge(rows)][1])
    for entry in [chain(2)[1] for _ in range(50)]:
        inbox.put([entry])
    assert log_of(inbox) == []
    assert sum(read) == 50
    read.clear()
    honest = chain(3)
    inbox.put(honest)
    assert log_of(opened()) == [entry.line for entry in honest]
    assert sum(read) == 3


def test_a_chain_with_many_holes_costs_no_more_at_each(inbox: Inbox) -> None:
    """Each entry that comes wakes no more rows than are read at once, and all come in the end."""
    entries = chain(60)
    for entry in entries[1::2]:
        inbox.put([entry])
    assert inbox.sequence(4) == 0
    assert inbox.waiting().entries == 30
    for entry in entries[::2]:
        inbox.put([entry])
    assert log_of(inbox) == [entry.line for entry in entries]
    assert inbox.sequence(4) == 0
    assert inbox.waiting().entries == 0


@with_slots
def test_what_waits_for_a_slot_that_turns_out_to_be_lost_is_refused(inbox: Inbox) -> None:
    entries = chain(4)
    inbox.put(entries[2:])
    assert inbox.sequence(100) == 0
    assert inbox.waiting().entries == 2
    inbox.put([forged(entries[0]), entries[1]])
    assert log_of(inbox) == []
    assert inbox.waiting().entries == 0
    assert {refusal.where.partition("/")[2] for refusal in inbox.refusals} == {"0", "1", "2", "3"}


INSERT = "INSERT INTO sealflow_audit.entries (writer, n, line) VALUES (%s, %s, %s)"


@with_slots
def test_numbers_that_nobody_can_count_to_block_nobody(opened: Opened) -> None:
    inbox = opened()
    entries = chain(2)
    writer, line = entries[0].writer, entries[1].line
    inbox.put([forged(entries[0])])
    assert inbox.sequence(100) == 0
    # What stands behind a lost slot is refused, whatever its number is, and so the next one has a lost slot before it.
    for n in (1, (1 << 63) - 2), ((1 << 63) - 1,):
        rows = [(writer, number, line) for number in n]
        if isinstance(inbox, SqliteInbox):
            with inbox._transaction() as sqlite:
                sqlite.executemany("INSERT INTO entries (writer, n, line) VALUES (?, ?, ?)", rows)
        else:
            assert isinstance(inbox, PostgresqlInbox)
            for row in rows:
                inbox._run(lambda connection, row=row: connection.execute(INSERT, row))
        assert inbox.sequence(100) == 0
    assert len(inbox.refusals) == 4
    honest = chain(3)
    inbox.put(honest)
    assert log_of(opened()) == [entry.line for entry in honest]


def test_an_index_is_given_once_whoever_else_gives_them(inbox: Inbox, opened: Opened) -> None:
    chains = [chain(random.randint(1, 6)) for _ in range(20)]
    errors = []

    def put(some: list) -> None:
        try:
            mine = opened()
            for entries in some:
                for entry in entries:
                    mine.put([entry])
        except BaseException as error:
            errors.append(error)

    def sequence() -> None:
        try:
            mine = opened()
            while not stop.is_set():
                mine.sequence(3)
        except BaseException as error:
            errors.append(error)

    stop = threading.Event()
    writers = [threading.Thread(target=put, args=(chains[i::4],)) for i in range(4)]
    sequencers = [threading.Thread(target=sequence) for _ in range(3)]
    for thread in writers + sequencers:
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    for thread in sequencers:
        thread.join()
    assert errors == []
    lines = log_of(inbox)
    assert sorted(lines) == sorted(entry.line for entries in chains for entry in entries)
    for entries in chains:
        places = [lines.index(entry.line) for entry in entries]
        assert places == sorted(places)


def test_the_last_hash_names_what_was_put_in_order(inbox: Inbox) -> None:
    entries = chain(3)
    inbox.put(entries)
    assert inbox.size() == 0
    assert log_of(inbox)
    assert inbox.last_hash(3) == entries[2].hash
    with pytest.raises(EvidenceError) as caught:
        inbox.last_hash(4)
    assert caught.value.code == "LOG_FORKED"


# --- Locations ---


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "inbox",
        "/srv/inbox",
        "file:///srv/inbox",
        "sqlite:",
        "sqlite:inbox.db",
        "sqlite:/inbox.db?mode=ro",
        "postgresql://",
        "postgresql://host",
        "postgresql://host/db?options=-csynchronous_commit%3Doff",
        "postgresql://host/db?unknown=1",
        "mysql://host/db",
        "http://host/inbox",
    ],
)
def test_what_names_no_inbox_is_refused(uri: str) -> None:
    with pytest.raises(UsageError):
        open_inbox(uri, Storages())


@pytest.mark.parametrize(
    "uri",
    [
        "mysql://me:secret@host/db",
        "postgresql://me:secret@host/db",
        "postgresql://me@host/db?password=secret",
        "postgresql://me:secret@host/db?unknown=1",
        "postgresql://me:secret@host:port:1/db",
        "postgresql://host/db?secret",
    ],
)
def test_a_location_holds_no_password_and_no_refusal_repeats_one(uri: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_inbox(uri, Storages())
    assert "secret" not in str(caught.value)
