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
from typing import Any

from tests.pki import KeyPair


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


class AirflowHome:
    """An Airflow installation.

    Args:
        folder: Where everything lies.
        key: The key that the default connection signs with and trusts. It has a key that encrypts, too.
    """

    def __init__(self, folder: Path, key: KeyPair) -> None:
        self.folder, self.key = folder, key
        self.home = folder / "home"
        self.dags = folder / "dags"
        self.work = folder / "work"
        for path in (self.home, self.dags, self.work):
            path.mkdir()
        self.team = folder / "team.key"
        self.team.write_bytes(bytes(range(32)))
        self.audit_log = self.home / "sealflow" / "audit.jsonl"

    def environment(self, **extra: str) -> dict[str, str]:
        """Return the environment of every command; nothing of the machine's own settings is in it."""
        return {
            "PATH": os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]),
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

    def command(self, *arguments: str, env: Mapping[str, str] | None = None, timeout: float = 240) -> str:
        """Run ``airflow`` and return what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "airflow", *arguments],
            env=self.environment(**(env or {})),
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            timeout=timeout,
            text=True,
        )
        assert done.returncode == 0 or "DagRun failed" in done.stdout, done.stdout[-6000:]
        return done.stdout

    def migrate(self) -> None:
        """Make the database."""
        self.command("db", "migrate")

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Ask the metadata database."""
        with closing(sqlite3.connect(f"file:{self.home / 'airflow.db'}?mode=ro", uri=True)) as database:
            return database.execute(query, values).fetchall()

    def run(self, dag: str, conf: Mapping[str, Any], env: Mapping[str, str] | None = None) -> Run:
        """Run a DAG by ``airflow dags test`` and return what became of it."""
        output = self.command("dags", "test", dag, "--conf", json.dumps(conf), env=env)
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
        return [json.loads(line) for line in self.audit_log.read_text().splitlines()]


def unused_port() -> int:
    """Return a port on which nobody listens."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def statements(folder: Path) -> Iterator[dict[str, Any]]:
    """Decode the statements of all evidence objects below ``folder``."""
    for path in sorted(folder.rglob("*-????????????????????????????????????????????????????????????????.json")):
        yield json.loads(base64.b64decode(json.loads(path.read_bytes())["dsseEnvelope"]["payload"]))
