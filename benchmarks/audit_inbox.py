"""Durable audit events: into an inbox by many writers, and from there into the log, with every wait for the disk.

On the disk that holds temporary files, not in memory: what is measured is mostly the disk. Writers are processes of
their own on the same machine as the database.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from benchmarks.measure import environment
from benchmarks.table import Figure

BATCH = 100
#: About what an event of ours takes.
EVENT = 600

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


def measure(rounds: int, quick: bool) -> list[Figure]:
    """Return the medians; without PostgreSQL only those of the file."""
    from sealflow.actions.keys_generate import generate_key

    seconds = 0.5 if quick else 3.0
    with tempfile.TemporaryDirectory(prefix="sealflow-bench-", dir="/var/tmp") as folder, _database() as made:
        generate_key(f"{folder}/log.pem", algorithm="ed25519")
        found: dict[str, list[float]] = {}

        def add(name: str, value: float) -> None:
            found.setdefault(name, []).append(value)

        for turn in range(max(1, rounds // 2)):
            for kind, fresh in (("SQLite", lambda: f"sqlite:{folder}/{os.urandom(4).hex()}.db"), ("PostgreSQL", made)):
                if fresh is None:
                    continue
                uri = fresh()
                batched = _writers(uri, 8, BATCH, seconds)
                add(f"{kind}: batches of {BATCH}, 8 writers", batched)
                ordered, integrated = _integrate(uri, f"{folder}/log-{kind}-{turn}", f"{folder}/log.pem")
                add(f"{kind}: put in order", ordered)
                add(f"{kind}: integrated into a folder", integrated)
                add(f"{kind}: single events, 16 writers", _writers(fresh(), 16, 1, seconds))
    bounds = {
        f"PostgreSQL: batches of {BATCH}, 8 writers": 10_000.0,
        "PostgreSQL: single events, 16 writers": 2_000.0,
        "PostgreSQL: integrated into a folder": 20_000.0,
        "SQLite: integrated into a folder": 20_000.0,
    }
    return [
        Figure(name, statistics.median(values), "entries/s", least=bounds.get(name)) for name, values in found.items()
    ]


def _writers(uri: str, count: int, batch: int, seconds: float) -> float:
    """Return how many entries a second all writers together put."""
    command = [sys.executable, "-c", _WRITER, uri, str(batch), str(seconds), str(EVENT)]
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
def _database() -> Iterator:
    """Yield what makes a database with an inbox and returns its location, ``None`` where there is no PostgreSQL."""
    from sealflow.audit.inbox_postgresql import PostgresqlInbox
    from tests.servers.postgresql import postgresql_server, programs

    if programs() is None:
        yield None
        return
    with postgresql_server() as server:
        os.environ.update(server.environment)

        def fresh() -> str:
            uri = server.uri(server.make_database())
            inbox = PostgresqlInbox(uri)
            inbox.set_up()
            inbox.close()
            return uri

        yield fresh


if __name__ == "__main__":
    for figure in measure(int(sys.argv[1]) if len(sys.argv) > 1 else 2, quick=False):
        print(figure)
