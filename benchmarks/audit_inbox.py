"""Durable audit events: into an inbox by many writers, and from there into the log, with every wait for the disk.

On the disk that holds temporary files, not in memory: what is measured is mostly the disk. Writers are processes of
their own on the same machine as the database.
"""

from __future__ import annotations

import contextlib
import functools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from benchmarks import audit_row_counter
from benchmarks.measure import environment
from benchmarks.table import Figure, Missing
from tests.servers.postgresql import PostgresqlServer

BATCH = 100
#: About what an event of ours takes.
EVENT = 600
_BATCHED = f"batches of {BATCH}, 8 writers"
_SINGLE = "single events, 16 writers"

# Waits for a line before it begins, so that all begin together; then puts for so long, and says how many.
_WRITER = """
import sys, time
from sealflow.audit.entry import Chain
from sealflow.audit.inbox import open_inbox
from sealflow.storage import Storages
uri, batch, seconds, size = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
inbox = open_inbox(uri, Storages())
chain = Chain()
event = b'{"a":"' + b"x" * (size - 8) + b'"}'
# Signing is the writer's own work, and measured elsewhere.
ready = [[chain.add(event) for _ in range(batch)] for _ in range(int(seconds * (12000 / batch if batch > 1 else 600)))]
inbox.put(ready[0])
print("ready", flush=True)
sys.stdin.readline()
start, done = time.perf_counter(), 0
for some in ready[1:]:
    if time.perf_counter() - start > seconds:
        break
    inbox.put(some)
    done += len(some)
print(done / (time.perf_counter() - start), flush=True)
"""

_INTEGRATOR = """
import sys, time
from sealflow.audit.inbox import open_inbox
from sealflow.audit.integrate import integrate
from sealflow.audit.log import open_log
from sealflow.keys import load_signer
from sealflow.storage import Storages
inbox, log, key = sys.argv[1:]
opened = open_inbox(inbox, Storages())
start = time.perf_counter()
while opened.sequence(4096):
    pass
ordered = time.perf_counter()
done = integrate(opened, open_log(log, Storages()), load_signer(f"file:{key}"), "bench.example/audit")
end = time.perf_counter()
print(done.added / (ordered - start), done.added / (end - ordered))
"""


def measure(rounds: int, quick: bool) -> list[Figure | Missing]:
    """Return the medians; without PostgreSQL those of the file, and that the others are missing."""
    from sealflow.actions.keys_generate import generate_key

    seconds = 0.5 if quick else 3.0
    with tempfile.TemporaryDirectory(prefix="sealflow-bench-", dir="/var/tmp") as folder, _database() as server:
        generate_key(f"{folder}/log.pem", algorithm="ed25519")
        found: dict[str, list[float]] = {}

        def add(name: str, value: float) -> None:
            found.setdefault(name, []).append(value)

        for turn in range(max(1, rounds // 2)):
            for kind in ("SQLite", "PostgreSQL") if server else ("SQLite",):
                fresh = functools.partial(_inbox, server if kind == "PostgreSQL" else None, folder)
                uri = fresh()
                add(f"{kind}: {_BATCHED}", writers(_WRITER, uri, 8, BATCH, seconds))
                ordered, integrated = _integrate(uri, f"{folder}/log-{kind}-{turn}", f"{folder}/log.pem")
                add(f"{kind}: put in order", ordered)
                add(f"{kind}: integrated into a folder", integrated)
                add(f"{kind}: {_SINGLE}", writers(_WRITER, fresh(), 16, 1, seconds))
            for what, count, batch in ((_BATCHED, 8, BATCH), (_SINGLE, 16, 1)) if server else ():
                write = functools.partial(writers, audit_row_counter.WRITER, count=count, batch=batch, seconds=seconds)
                add(f"PostgreSQL: {what}, a table with a row counter", audit_row_counter.measure(server, write))
    bounds = {
        f"PostgreSQL: {_BATCHED}": 10_000.0,
        f"PostgreSQL: {_SINGLE}": 2_000.0,
        "PostgreSQL: integrated into a folder": 20_000.0,
        "SQLite: integrated into a folder": 20_000.0,
    }
    rows: list[Figure | Missing] = [
        Figure(name, statistics.median(values), "entries/s", least=bounds.get(name)) for name, values in found.items()
    ]
    return rows if server else [*rows, Missing("PostgreSQL", "it is not installed here")]


def _inbox(server: PostgresqlServer | None, folder: str) -> str:
    """Make an inbox in a database of its own, or in a file of its own, and return its location."""
    if server is None:
        return f"sqlite:{folder}/{os.urandom(4).hex()}.db"
    from sealflow.audit.inbox_postgresql import PostgresqlInbox

    uri = server.uri(server.make_database())
    inbox = PostgresqlInbox(uri)
    inbox.set_up()
    inbox.close()
    return uri


def writers(code: str, uri: str, count: int, batch: int, seconds: float) -> float:
    """Return how many entries a second all writers together put."""
    command = [sys.executable, "-c", code, uri, str(batch), str(seconds), str(EVENT)]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment())
        for _ in range(count)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    time.sleep(0.2)
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    return sum(float(process.communicate()[0]) for process in processes)


def _integrate(uri: str, log: str, key: str) -> tuple[float, float]:
    command = [sys.executable, "-c", _INTEGRATOR, uri, log, key]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment())
    ordered, integrated = map(float, done.stdout.split())
    return ordered, integrated


@contextlib.contextmanager
def _database() -> Iterator[PostgresqlServer | None]:
    """Yield a server, ``None`` where there is no PostgreSQL."""
    from tests.servers.postgresql import postgresql_server, programs

    if programs() is None:
        yield None
        return
    with postgresql_server() as server:
        os.environ.update(server.environment)
        yield server
