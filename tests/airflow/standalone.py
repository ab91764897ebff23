"""A whole Airflow, started as ``airflow standalone`` on loopback and stopped by its process group."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from tests.airflow.home import AirflowHome, unused_port

#: Marks of a module that starts one. One worker runs them all: two beside each other would both wait.
STANDALONE = [
    pytest.mark.airflow,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("airflow-standalone"),
]


class Standalone:
    """A running Airflow.

    Args:
        home: Its home.
        port: Port of its API server.
        passwords: Users with their passwords, the first of whom is an admin; without any, everybody is one.
    """

    def __init__(self, home: AirflowHome, port: int, passwords: Mapping[str, str] | None = None) -> None:
        self.home, self.port = home, port
        self._passwords = dict(passwords or {})
        self._token = ""

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Call the REST API."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {self._token}"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or b"null")

    def log_in(self) -> None:
        """Get a token."""
        self._token = self.token()

    def token(self, user: str = "") -> str:
        """Return a token of a user, by default of the admin."""
        if not self._passwords:
            return str(self.call("GET", "/auth/token")["access_token"])
        user = user or next(iter(self._passwords))
        body = {"username": user, "password": self._passwords[user]}
        return str(self.call("POST", "/auth/token", body)["access_token"])

    def trigger(self, dag: str, **conf: str) -> str:
        """Start a run of a DAG and return its id."""
        body = {"logical_date": None, "conf": conf}
        run: str = self.call("POST", f"/api/v2/dags/{dag}/dagRuns", body)["dag_run_id"]
        return run

    def runs(self, dag: str) -> list[str]:
        """Return the ids of all runs of a DAG, the first one first."""
        return [run for (run,) in self.home.rows("SELECT run_id FROM dag_run WHERE dag_id = ? ORDER BY id", dag)]

    def started(self, dag: str, number: int = 1, timeout: float = 120) -> str:
        """Wait until events have started a run of a DAG for the ``number``-th time, and return its id."""
        found: list[str] = until(
            lambda: found if len(found := self.runs(dag)) >= number else None, timeout, f"run {number} of {dag}"
        )
        return found[number - 1]

    def tasks(self, dag: str, run: str | None = None) -> dict[str, tuple[str, int]]:
        """Return task id to state and tries of a run, by default the DAG's latest."""
        rows = self.home.rows(
            "SELECT task_id, state, try_number FROM task_instance WHERE dag_id = ? AND run_id = coalesce(?, "
            "(SELECT run_id FROM dag_run WHERE dag_id = ? ORDER BY id DESC LIMIT 1))",
            dag,
            run,
            dag,
        )
        return {task: (state, tries) for task, state, tries in rows}

    def finished(self, dag: str, run: str | None = None, timeout: float = 240) -> dict[str, tuple[str, int]]:
        """Wait for the end of a run, by default the DAG's latest."""

        def done() -> dict[str, tuple[str, int]] | None:
            found = self.tasks(dag, run)
            ended = {"success", "failed", "upstream_failed", "skipped"}
            return found if found and all(state in ended for state, _ in found.values()) else None

        return until(done, timeout, f"{dag} {run}")

    def log(self, dag: str) -> str:
        """Return the logs of all tasks of a DAG."""
        folder = self.home.home / "logs"
        return "\n".join(path.read_text(errors="replace") for path in sorted(folder.rglob(f"dag_id={dag}/**/*.log")))


def until(ask: Callable[[], Any], timeout: float, what: str) -> Any:
    """Ask until there is an answer."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if (found := ask()) is not None:
            return found
        time.sleep(0.5)
    raise AssertionError(f"Waited {timeout} s for {what}.")


@contextmanager
def standalone(
    home: AirflowHome, env: Mapping[str, str], passwords: Mapping[str, str] | None = None
) -> Iterator[Standalone]:
    """Start an Airflow and wait until it answers."""
    ports = [unused_port() for _ in range(4)]
    running = Standalone(home, ports[0], passwords)
    settings = {
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(ports[0]),
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{ports[0]}",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{ports[0]}/execution/",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__CORE__PARALLELISM": "2",
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(ports[1]),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(ports[2]),
        "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_PORT": str(ports[3]),
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
        # On a busy machine the API server's first answers take longer than the default; a try would be lost.
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
        "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
        **env,
    }
    output = home.folder / "standalone.log"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [home.python, "-m", "airflow", "standalone"],
            env=home.environment(**settings),
            cwd=home.folder,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:

        def answers() -> bool | None:
            assert process.poll() is None, output.read_text()[-4000:]
            assert "Exception in thread" not in output.read_text(), output.read_text()[-4000:]
            try:
                running.log_in()
                health = running.call("GET", "/api/v2/monitor/health")
            except (OSError, urllib.error.URLError):
                return None
            parts = ("scheduler", "dag_processor")
            return True if all(health[part]["status"] == "healthy" for part in parts) else None

        until(answers, 300, "Airflow")
        yield running
    finally:
        for sign in (signal.SIGINT, signal.SIGKILL):
            try:
                os.killpg(process.pid, sign)
                process.wait(20)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
