"""What is the file's own."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sealflow.audit.inbox_sqlite import SqliteInbox
from sealflow.errors import UnavailableError
from tests.core.audit.chains import chain, log_of


def test_nobody_else_reads_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        inbox = SqliteInbox(f"sqlite:{tmp_path}/new/inbox.db")
        inbox.put(chain(1))
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "new").iterdir()}
    finally:
        os.umask(before)
    inbox.close()
    assert modes == {"inbox.db": 0o600, "inbox.db-wal": 0o600, "inbox.db-shm": 0o600}


def test_nothing_is_made_before_it_is_used(tmp_path: Path) -> None:
    SqliteInbox(f"sqlite:{tmp_path}/inbox.db").close()
    assert list(tmp_path.iterdir()) == []


def test_a_commit_is_on_the_disk(tmp_path: Path) -> None:
    inbox = SqliteInbox(f"sqlite:{tmp_path}/inbox.db")
    with inbox._transaction("DEFERRED") as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    inbox.close()


def test_a_file_that_is_none_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "inbox.db").write_bytes(b"my diary" * 200)
    inbox = SqliteInbox(f"sqlite:{tmp_path}/inbox.db")
    with pytest.raises(UnavailableError) as caught:
        inbox.put(chain(1))
    assert caught.value.code == "AUDIT_UNAVAILABLE"
    assert (tmp_path / "inbox.db").read_bytes() == b"my diary" * 200


def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UnavailableError):
        SqliteInbox(f"sqlite:{tmp_path}/file/inbox.db").put(chain(1))


def test_a_full_disk_says_so_and_loses_nothing(tmp_path: Path) -> None:
    inbox = SqliteInbox(f"sqlite:{tmp_path}/inbox.db")
    entries = chain(40, b'{"a":"' + b"x" * 8000 + b'"}')
    inbox.put(entries[:1])
    with inbox._transaction() as connection:
        connection.execute("PRAGMA max_page_count = 30")
    with pytest.raises(UnavailableError) as caught:
        inbox.put(entries)
    assert caught.value.code == "NO_SPACE"
    inbox.put(entries)  # a new connection, without the limit
    assert log_of(inbox) == [entry.line for entry in entries]
    inbox.close()


def test_one_that_holds_the_file_too_long_makes_it_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sealflow.audit.inbox_sqlite.PATIENCE", 0.1)
    inbox = SqliteInbox(f"sqlite:{tmp_path}/inbox.db")
    entries = chain(1)
    inbox.put(entries)
    other = sqlite3.connect(tmp_path / "inbox.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(UnavailableError):
        inbox.put(chain(1))
    other.execute("ROLLBACK")
    other.close()
    inbox.put(entries)
    inbox.close()


def test_a_fork_opens_the_file_anew(tmp_path: Path) -> None:
    inbox = SqliteInbox(f"sqlite:{tmp_path}/inbox.db")
    first, second = chain(1), chain(1)
    inbox.put(first)
    if (child := os.fork()) == 0:
        try:
            inbox.put(second)
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    inbox.put(first)
    assert len(log_of(inbox)) == 2
    inbox.close()


@pytest.mark.slow
def test_many_that_make_the_file_at_once_make_one(tmp_path: Path) -> None:
    code = (
        "import sys; from sealflow.audit.inbox_sqlite import SqliteInbox; from sealflow.audit.entry import Chain\n"
        "SqliteInbox(sys.argv[1]).put([Chain().add(b'{}')])"
    )
    uri = f"sqlite:{tmp_path}/inbox.db"
    processes = [subprocess.Popen([sys.executable, "-c", code, uri]) for _ in range(6)]
    assert [process.wait(60) for process in processes] == [0] * 6
    inbox = SqliteInbox(uri)
    assert len(log_of(inbox)) == 6
    inbox.close()
