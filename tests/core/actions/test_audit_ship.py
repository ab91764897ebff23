"""Shipping: everything goes over once, whoever runs, dies or interferes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sealflow.actions import audit_ship
from sealflow.actions.audit_ship import ship
from sealflow.audit import AuditEvent, spool
from sealflow.audit.entry import Entry, parse_entry
from sealflow.audit.inbox import open_inbox
from sealflow.errors import UnavailableError, UsageError
from sealflow.run_identity import RunIdentity
from sealflow.storage import Storages
from tests.audit_events import entries, spooled
from tests.core.conftest import Cli, body

RUN = RunIdentity("airflow", "train", "fit", "r1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def inbox(tmp_path: Path) -> str:
    return f"sqlite:{tmp_path}/inbox.db"


def written(folder: Path, *names: str, end: bool = True) -> Any:
    writer = spooled(folder)
    for name in names:
        writer.record(AuditEvent("sign", "intent", RUN, name))
    if end:
        writer.close()
    return writer


def taken(inbox: str) -> list[Entry]:
    """Return what the inbox puts into order: each entry whose chain is whole up to it, once."""
    opened = open_inbox(inbox, Storages())
    while opened.sequence(1000):
        pass
    lines: list[bytes] = []
    while more := opened.sequenced(len(lines), 1000):
        lines += more
    opened.close()
    return [parse_entry(line) for line in lines]


def artifacts(inbox: str) -> list[str]:
    return sorted(str(json.loads(entry.event).get("artifact", "")) for entry in taken(inbox))


def test_everything_goes_over_and_the_dead_leave(folder: Path, inbox: str) -> None:
    written(folder, "a", "b")
    written(folder, "c")
    done = ship(str(folder), inbox)
    assert (done.entries, done.removed, done.alive, done.troubles) == (5, 2, 0, ())
    assert artifacts(inbox) == ["", "", "a", "b", "c"]
    assert list(folder.iterdir()) == []
    assert ship(str(folder), inbox).entries == 0


def test_the_living_stay_and_go_over_again(folder: Path, inbox: str) -> None:
    writer = written(folder, "a", end=False)
    assert (ship(str(folder), inbox).removed, ship(str(folder), inbox).alive) == (0, 1)
    writer.record(AuditEvent("sign", "intent", RUN, "b"))
    writer.close()
    done = ship(str(folder), inbox)
    assert (done.entries, done.removed) == (3, 1)
    assert artifacts(inbox) == ["", "a", "b"]


def test_a_dead_writers_chain_gets_no_end(folder: Path, inbox: str) -> None:
    written(folder, "a", end=False)._let_go()
    assert ship(str(folder), inbox).removed == 1
    assert artifacts(inbox) == ["a"]


def test_no_spool_is_no_error(folder: Path, inbox: str) -> None:
    assert ship(str(folder), inbox).entries == 0


def test_an_altered_file_stays_and_its_sound_entries_go(folder: Path, inbox: str) -> None:
    written(folder, "a", "b")
    written(folder, "c")
    (path,) = [item for item in folder.iterdir() if b'"artifact":"a"' in item.read_bytes()]
    path.write_bytes(path.read_bytes().replace(b'"artifact":"b"', b'"artifact":"x"'))
    done = ship(str(folder), inbox)
    assert [item.code for item in done.troubles] == ["AUDIT_SIGNATURE"]
    assert done.exit_status == 3
    assert list(folder.iterdir()) == [path]
    assert artifacts(inbox) == ["", "a", "c"]


def test_a_squatted_slot_is_told_and_the_others_go(folder: Path, inbox: str) -> None:
    written(folder, "a", "b")
    (one, *_) = entries(folder)
    squatter = open_inbox(inbox, Storages())
    fake = one.line[:-88] + b"A" * 86 + b"=="
    squatter.put([parse_entry(fake)])
    squatter.close()
    for _ in range(2):
        done = ship(str(folder), inbox)
        assert [(item.writer, item.code) for item in done.troubles] == [(one.writer, "AUDIT_SQUATTED")]
        assert (done.entries, done.removed) == (2, 0)


def a_folder(path: Path) -> None:
    path.mkdir()


def a_link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize("kind", [a_folder, a_link, a_pipe])
@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_what_cannot_be_read_keeps_nothing_else_back(
    folder: Path, inbox: str, kind: Callable[[Path], None], first: bool
) -> None:
    written(folder, "a")
    written(folder, "b")
    writer = ("0" if first else "f") * 64
    kind(folder / f"{writer}.entries")
    done = ship(str(folder), inbox)
    assert [(item.writer, item.code) for item in done.troubles] == [(writer, "AUDIT_UNAVAILABLE")]
    assert (done.entries, done.removed, done.exit_status) == (4, 2, 5)
    assert artifacts(inbox) == ["", "", "a", "b"]


def test_an_inbox_out_of_reach_loses_nothing(folder: Path, tmp_path: Path, inbox: str) -> None:
    written(folder, "a")
    (tmp_path / "file").touch()
    with pytest.raises(UnavailableError):
        ship(str(folder), f"sqlite:{tmp_path}/file/inbox.db")
    assert ship(str(folder), inbox).entries == 2


def test_no_inbox_is_a_usage_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEALFLOW_AUDIT_INBOX", raising=False)
    with pytest.raises(UsageError, match="inbox"):
        ship(str(folder))


def test_two_at_once(folder: Path, inbox: str) -> None:
    for number in range(30):
        written(folder, str(number))
    found: list[audit_ship.Shipped] = []
    threads = [threading.Thread(target=lambda: found.append(ship(str(folder), inbox))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ship(str(folder), inbox)
    assert len(found) == 3
    assert len(taken(inbox)) == 60
    assert list(folder.iterdir()) == []


@pytest.mark.slow
def test_killed_at_any_point(folder: Path, inbox: str) -> None:
    """Every kill leaves everything in the spool, in the inbox, or in both."""
    for number in range(120):
        written(folder, str(number))
    script = f"from sealflow.actions.audit_ship import ship\nprint(1, flush=True)\nship({str(folder)!r}, {inbox!r})"
    killed = 0
    for number in range(40):
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(number % 10 * 0.004)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        process.stdout.close()
        if not os.listdir(folder):
            break
    assert killed >= 3
    ship(str(folder), inbox)
    assert spool.writers(str(folder)) == []
    found = [(entry.writer, entry.n) for entry in taken(inbox)]
    assert len(found) == len(set(found)) == 240


def test_the_command(cli: Cli, tmp_path: Path, inbox: str) -> None:
    written(tmp_path / "spool", "a")
    done = cli("audit", "ship", "--json", SEALFLOW_AUDIT_INBOX=inbox)
    assert (body(done)["entries"], body(done)["removed"]) == (2, 1)
    (tmp_path / "spool" / ("0" * 64 + ".entries")).write_bytes(b"nonsense\n")
    done = cli("audit", "ship", "--inbox", inbox)
    assert done.returncode == 3
    assert "AUDIT_MALFORMED" in done.stdout
    assert cli("audit", "ship").returncode == 2
