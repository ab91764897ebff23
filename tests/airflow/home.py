"""An Airflow installation in a folder, driven through its own command line."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import sealflow
import sealflow_airflow
from tests.audit_events import read_events
from tests.pki import KeyPair
from tests.servers.postgresql import PostgresqlServer

_PACKAGES = (sealflow, sealflow_airflow)


@dataclass(frozen=True)
class Run:
    """What Airflow's database and output say about one DAG run.

    Attributes:
        run_id: Its id.
        state: Its state.
        states: Task id to state; mapped tasks as ``task[0]``.
        tries: Task id to the number of the last try.
        xcoms: ``(task id, key)`` to value.
        output: What the command printed, task logs included.
    """

    run_id: str
    state: str
    states: dict[str, str]
    tries: dict[str, int]
    xcoms: dict[tuple[str, str], Any]
    output: str

    def failed_with(self, task: str, text: str) -> bool:
        """Tell whether the output names ``text`` as the error of ``task``."""
        _, started, rest = self.output.partition(f"starting task_id={task} ")
        return bool(started) and text in rest.partition("end task task_id=")[0]


class Database(Protocol):
    """Where an Airflow keeps its metadata.

    Attributes:
        settings: How every command finds it.
    """

    settings: Mapping[str, str]

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Ask, with ``?`` for each value; JSON is returned as text."""


class SqliteDatabase:
    """Airflow's default: a file in its home."""

    def __init__(self, home: Path) -> None:
        self.settings: Mapping[str, str] = {}
        self._uri = f"file:{home / 'airflow.db'}?mode=ro"

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self._uri, uri=True)) as database:
            return database.execute(query, values).fetchall()


class PostgresqlDatabase:
    """A database of its own on a server, with the driver that our own inboxes need."""

    def __init__(self, server: PostgresqlServer) -> None:
        self._server, self._name = server, server.make_database()
        uri = server.uri(self._name).replace("postgresql:", "postgresql+psycopg:")
        # Without the second Airflow asks for another driver.
        names = ("SQL_ALCHEMY_CONN", "SQL_ALCHEMY_CONN_ASYNC")
        self.settings: Mapping[str, str] = {
            **server.environment,
            **{f"AIRFLOW__DATABASE__{name}": uri for name in names},
        }

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        import psycopg
        from psycopg.types.string import TextLoader

        passwords = self._server.passwords
        with psycopg.connect(self._server.uri(self._name), passfile=str(passwords)) as connection:
            for kind in ("json", "jsonb"):
                connection.adapters.register_loader(kind, TextLoader)
            return connection.execute(query.replace("?", "%s"), values).fetchall()


class AirflowHome:
    """An Airflow installation.

    Args:
        folder: Where everything lies.
        key: The key that the default connection signs with and trusts. It has a key that encrypts, too.
        server: Where its database is, instead of a file in its home.

    Attributes:
        python: What runs it.
    """

    def __init__(self, folder: Path, key: KeyPair, server: PostgresqlServer | None = None) -> None:
        self.folder, self.key = folder, key
        self.home = folder / "home"
        self.dags = folder / "dags"
        self.work = folder / "work"
        for path in (self.home, self.dags, self.work):
            path.mkdir()
        self.python = sys.executable
        self.team = folder / "team.key"
        self.team.write_bytes(bytes(range(32)))
        self.spool = self.home / "sealflow" / "audit" / "spool"
        self.database: Database = PostgresqlDatabase(server) if server else SqliteDatabase(self.home)

    def environment(self, **extra: str) -> dict[str, str]:
        """Return the environment of every command; nothing of the machine's own settings is in it."""
        return {
            "PATH": os.pathsep.join([os.path.dirname(self.python), os.environ["PATH"]]),
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW_CONN_SEALFLOW_DEFAULT": self.connection(
                signer=self.key.signer,
                identities={"trainer": f"file:{self.key.public}"},
                recipients=[f"aes:{self.team}"],
            ),
            "AWS_EC2_METADATA_DISABLED": "true",
            # The tree that is tested, whatever is installed.
            "PYTHONPATH": os.pathsep.join(dict.fromkeys(str(Path(item.__path__[0]).parent) for item in _PACKAGES)),
            **self.database.settings,
            **extra,
        }

    @staticmethod
    def connection(**extra: Any) -> str:
        """Return a connection of our type as an environment variable holds it."""
        return json.dumps({"conn_type": "sealflow", "extra": extra})

    def add_dags(self, folder: Path) -> None:
        """Copy the DAG files of ``folder`` to where Airflow looks for them."""
        for path in folder.glob("*.py"):
            shutil.copy(path, self.dags)

    def command(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        first: str = "",
        status: int = 0,
        timeout: float = 240,
    ) -> str:
        """Run ``airflow``, after the program ``first`` in the same process, and return what it printed."""
        start = f"{first}\nimport runpy, sys\nsys.argv[0] = 'airflow'\nrunpy.run_module('airflow', run_name='__main__')"
        done = subprocess.run(
            [self.python, *(("-c", start) if first else ("-m", "airflow")), *arguments],
            env=self.environment(**(env or {})),
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            timeout=timeout,
            text=True,
        )
        assert done.returncode == status or "DagRun failed" in done.stdout, done.stdout[-6000:]
        return done.stdout

    def migrate(self) -> None:
        """Make the database."""
        self.command("db", "migrate")

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Ask the metadata database."""
        return self.database.rows(query, *values)

    def run(self, dag: str, conf: Mapping[str, Any], env: Mapping[str, str] | None = None, first: str = "") -> Run:
        """Run a DAG by ``airflow dags test``, after the program ``first``, and return what became of it."""
        output = self.command("dags", "test", dag, "--conf", json.dumps(conf), env=env, first=first)
        run_id, state = self.rows("SELECT run_id, state FROM dag_run WHERE dag_id = ? ORDER BY id DESC LIMIT 1", dag)[0]
        tasks = self.rows(
            "SELECT task_id, map_index, state, try_number FROM task_instance WHERE dag_id = ? AND run_id = ?",
            dag,
            run_id,
        )
        named = {task if index < 0 else f"{task}[{index}]": (state, tries) for task, index, state, tries in tasks}
        pushed = self.rows("SELECT task_id, key, value FROM xcom WHERE dag_id = ? AND run_id = ?", dag, run_id)
        return Run(
            run_id,
            state,
            {name: state for name, (state, _) in named.items()},
            {name: tries for name, (_, tries) in named.items()},
            # SQLite turns the text of a number into a number.
            {(task, name): json.loads(value) if isinstance(value, str) else value for task, name, value in pushed},
            output,
        )

    def folder_for(self, name: str) -> Path:
        """Make a fresh folder for one run's artifacts."""
        made = self.work / name
        made.mkdir()
        return made

    def events(self) -> list[dict[str, Any]]:
        """Return the audit events so far."""
        return read_events(self.spool)


def unused_port() -> int:
    """Return a port on which nobody listens."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def statements(folder: Path) -> Iterator[dict[str, Any]]:
    """Decode the statements of all evidence objects below ``folder``."""
    for path in sorted(folder.rglob("*-????????????????????????????????????????????????????????????????.json")):
        yield json.loads(base64.b64decode(json.loads(path.read_bytes())["dsseEnvelope"]["payload"]))
