"""The peer of the audit's inbox: a table whose rows are numbered by a counter while writers wait.

The row counter is as good as such a table can be: the counter is moved and the row inserted by one prepared statement,
in one round trip and one commit. What it cannot help is that everybody waits for the disk of everybody else: the
counter is locked until the commit is durable. What the database holds is checked afterwards: no number is missing. In
batches that wait is shared by a hundred rows, and the table keeps less than the inbox: no hash, and no second index by
which what is put again is found.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.servers.postgresql import PostgresqlServer

# Waits for a line before it begins, so that all begin together; then puts for so long, and says how many.
WRITER = """
import os, sys, time
import psycopg
uri, batch, seconds, size = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
ONE = '''
WITH next AS (UPDATE counter SET n = n + 1 RETURNING n)
INSERT INTO entries (n, writer, line) SELECT n, %s, %s FROM next'''
MANY = '''
WITH given AS (SELECT line, k FROM unnest(%s::bytea[]) WITH ORDINALITY AS given (line, k)),
  next AS (UPDATE counter SET n = n + (SELECT count(*) FROM given) RETURNING n)
INSERT INTO entries (n, writer, line)
SELECT next.n - (SELECT count(*) FROM given) + k, %s, line FROM next, given'''
line, writer = b"x" * size, os.urandom(32).hex()
with psycopg.connect(uri, autocommit=True, prepare_threshold=0) as connection:
    def put():
        if batch == 1:
            connection.execute(ONE, (writer, line), binary=True)
        else:
            connection.execute(MANY, ([line] * batch, writer), binary=True)
    put()
    print("ready", flush=True)
    sys.stdin.readline()
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start <= seconds:
        put()
        done += batch
    print(done / (time.perf_counter() - start), flush=True)
"""

_TABLES = (
    # With room in its page, so that a move of the counter touches no index.
    "CREATE TABLE counter (one boolean PRIMARY KEY DEFAULT true CHECK (one), n bigint NOT NULL) WITH (fillfactor = 10)",
    "INSERT INTO counter (n) VALUES (0)",
    "CREATE TABLE entries (n bigint PRIMARY KEY, writer text NOT NULL, line bytea NOT NULL, "
    "recorded_at timestamptz NOT NULL DEFAULT clock_timestamp())",
)


def measure(server: PostgresqlServer, write: Callable[[str], float]) -> float:
    """Return entries a second.

    Args:
        server: A server.
        write: Has all writers write at a location, and returns how many entries a second they put.

    Raises:
        RuntimeError: A number is missing, so that nothing was measured that is worth it.
    """
    import psycopg

    database = server.make_database()
    server.execute(database, *_TABLES)
    uri = server.uri(database)
    rate = write(uri)
    with psycopg.connect(uri, passfile=str(server.passwords)) as connection:
        asked = "SELECT (SELECT n FROM counter), count(*), min(n), max(n) FROM entries"
        counter, count, first, last = connection.execute(asked).fetchone() or (0, 0, 0, 0)
    if not (count and first == 1 and counter == count == last):
        raise RuntimeError(f"the row counter says {counter}, and there are {count} rows from {first} to {last}")
    return rate
