"""Writers that are killed at random points: whatever they were told to be durable is in the inbox, once."""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sealflow.actions.audit_ship import ship
from sealflow.audit import AuditEvent, spool
from sealflow.audit.inbox import open_inbox  # noqa: F401  (the script takes it from here)
from sealflow.audit.writer import Writer
from sealflow.run_identity import RunIdentity
from sealflow.storage import Storages  # noqa: F401
from tests.core.actions.test_audit_ship import taken
from tests.servers.postgresql import PostgresqlServer
from tests.servers.s3 import S3Server

KILLS = 350


def write_until_killed(make: Callable[[], Writer], out: int) -> None:
    """Record events for ever, and tell the id of each that is durable. Each process ends some chains by itself."""
    writer = make()
    os.write(out, b"\n")
    number = 0
    while True:
        number += 1
        event = AuditEvent("sign", "intent", RunIdentity("kfp", "train", "fit", "r1"), f"s3://b/{number}")
        writer.record(event)
        os.write(out, event.id.encode() + b"\n")
        if not number % 5:
            writer.close()


def kill_many(
    kills: int, window: float, make: Callable[[], Writer], between: Callable[[], object] | None, seed: int
) -> None:
    """Start a writer, kill it, and print what it was told; again and again. In a process with one thread: it forks."""
    choose, least = random.Random(seed), window
    for number in range(kills):
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.close(reading)
            try:
                write_until_killed(make, writing)
            finally:
                os._exit(9)
        os.close(writing)
        assert os.read(reading, 1) == b"\n"
        time.sleep(choose.uniform(0, window))
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL, "the writer ended by itself"
        told = b""
        while select.select([reading], [], [], 0)[0] and (more := os.read(reading, 1 << 16)):
            told += more
        os.close(reading)
        # A line that was cut off was told to nobody.
        print(*told.decode().split("\n")[:-1], sep="\n")
        # On a busy machine most would be killed before they wrote anything.
        window = max(window * 0.95, least) if b"\n" in told else min(window * 1.3, 3.0)
        if between is not None and not number % 20:
            between()


def killed(kind: str, place: str, inbox: str, window: float, kills: int = KILLS, crews: int = 1) -> list[str]:
    """Return the ids of all events that killed writers were told to be durable.

    Args:
        kind: Where they write: ``spool`` or ``inbox``.
        place: The spool.
        inbox: The inbox.
        window: Seconds within which each is killed.
        kills: How many there are.
        crews: How many of them write at the same time: over a network most of it is waiting.
    """
    script = (
        "import sys\n"
        "from tests.attacks.test_audit_writers import *\n"
        "import psycopg, boto3\n"
        "kind, place, inbox, window, kills, seed = sys.argv[1:]\n"
        "def make():\n"
        "    if kind == 'spool':\n"
        "        return Writer(RunIdentity(), spool=place)\n"
        "    return Writer(RunIdentity(), inbox=lambda: open_inbox(inbox, Storages()))\n"
        "between = (lambda: ship(place, inbox)) if kind == 'spool' else None\n"
        "kill_many(int(kills), float(window), make, between, int(seed))\n"
    )

    def crew(number: int) -> list[str]:
        share = kills // crews + (number < kills % crews)
        command = [sys.executable, "-c", script, kind, place, inbox, str(window), str(share), str(number)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    with ThreadPoolExecutor(crews) as pool:
        return [told for each in pool.map(crew, range(crews)) for told in each]


def check(inbox: str, told: list[str], kills: int = KILLS) -> None:
    entries = taken(inbox)
    found = [json.loads(entry.event).get("id") for entry in entries]
    assert len(told) >= kills // 2, "the writers were killed before they could write"
    assert sorted(set(told) - set(found)) == [], "an event was lost that was told to be durable"
    assert len(found) == len(set(found)), "an event is there twice"
    # Each killed writer leaves at most one event that it was not told of, and the ends of its chains.
    ends = sum(AuditEvent.parse(entry.event).phase == "end" for entry in entries)
    assert len(found) - ends <= len(told) + kills


@pytest.mark.slow
def test_killed_writers_of_a_spool(tmp_path: Path) -> None:
    place, inbox = str(tmp_path / "spool"), f"sqlite:{tmp_path}/inbox.db"
    told = killed("spool", place, inbox, 0.02)
    shipped = ship(place, inbox)
    assert shipped.troubles == ()
    # What was in the making when its writer died holds nothing, and goes when it is old.
    assert spool.writers(place) == []
    check(inbox, told)


@pytest.mark.slow
def test_killed_writers_of_an_sqlite_inbox(tmp_path: Path) -> None:
    inbox = f"sqlite:{tmp_path}/inbox.db"
    check(inbox, killed("inbox", "", inbox, 0.05))


@pytest.mark.slow
@pytest.mark.server
def test_killed_writers_of_a_postgresql_inbox(postgresql: PostgresqlServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from sealflow.audit.inbox_postgresql import PostgresqlInbox

    for name, value in postgresql.environment.items():
        monkeypatch.setenv(name, value)
    inbox = postgresql.uri(postgresql.make_database())
    with contextlib.closing(PostgresqlInbox(inbox)) as owner:
        owner.set_up(["writer"], ["integrator"])
    check(inbox, killed("inbox", "", inbox, 0.25, crews=4))


@pytest.mark.slow
@pytest.mark.server
@pytest.mark.timeout(900)
def test_killed_writers_of_an_s3_inbox(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    inbox = f"s3://{s3_server.make_bucket()}/inbox"
    # Fewer than over the others: each write takes so much longer.
    check(inbox, killed("inbox", "", inbox, 0.4, 120, crews=4), 120)
