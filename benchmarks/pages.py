"""The pages in Airflow's UI with 1,000 DAGs and 100,000 verdicts: how long the API server works on one.

In a process of its own, with Airflow's models on SQLite, its own auth manager and tokens, and a policy in force;
asked through Starlette's test client, so that no network is measured. Each user's first page, which fills what is
kept, is left out of the percentiles and told apart.

The index is made in the background, and what is new in the log is read every five seconds at most.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.measure import environment
from benchmarks.table import Figure

#: Most milliseconds that the page Trust takes.
BOUND = 300.0
_PAGES = {
    "Trust": "/trust",
    "Verdicts, of an artifact": "/verdicts?artifact=s3://models/m77/",
    "Verdicts, of a code that none has": "/verdicts?code=NAME_MISMATCH",
    "DAGs": "/dags?page=20",
    "Evidence of a run": "/evidence?dag_id={one}&run_id=run50",
}


def measure(folder: Path, rounds: int, quick: bool) -> list[Figure]:
    """Return how long each page takes, and how long the index takes to be made.

    Args:
        folder: An empty folder.
        rounds: How often each page is asked for, ten times.
        quick: A hundredth of everything.
    """
    command = [
        sys.executable,
        "-m",
        "benchmarks.pages",
        str(folder),
        str(rounds if quick else 10 * rounds),
        "100" if quick else "1",
    ]
    settings = {
        "AIRFLOW_HOME": str(folder / "home"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin,half:viewer,one:viewer",
        "AIRFLOW__API_AUTH__JWT_SECRET": "of the benchmark, and of nothing else, but long enough for any key",
        "AIRFLOW__SEALFLOW__AUDIT_LOG": str(folder / "log"),
        "AIRFLOW__SEALFLOW__AUDIT_LOG_KEY": str(folder / "log.vkey"),
        "AIRFLOW__SEALFLOW__PAGES_STATE": str(folder / "pages"),
        "AIRFLOW__SEALFLOW__POLICY": str(folder / "admin" / "policy.json"),
        "AIRFLOW__SEALFLOW__POLICY_KEYS": str(folder / "admin" / "admin.pub.pem"),
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
    }
    done = subprocess.run(command, env=environment(settings), stdout=subprocess.PIPE, text=True, check=True)
    return [Figure(*row) for row in json.loads(done.stdout.splitlines()[-1])]


def main() -> None:
    """Make a world, ask for its pages, and print figures as JSON."""
    folder, times, part = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    dags, verdicts = 1000 // part, 100_000 // part
    from tests.airflow.ui_world import database, store_dags
    from tests.e2e.admin import Admin, rule

    rules = [rule(f"models{number}", f"s3://models/m{number}/**") for number in range(100)]
    Admin(folder / "admin").publish(rules, {})
    entries = _write_log(folder, dags, verdicts)
    with database(folder / "airflow.db"):
        store_dags({f"dag{number:04}": [f"s3://models/m{number % 200}/x"] * 3 for number in range(dags)})
        print(json.dumps(list(_measured(folder, times, dags, entries))))


def _write_log(folder: Path, dags: int, verdicts: int) -> int:
    from tests.airflow.ui_world import Log, told

    log, chance, made = Log(folder), random.Random(7), 0
    start = time.time()
    while made < verdicts:
        events = []
        for number in range(made, min(made + 10_000, verdicts)):
            bad = number % 50 == 0
            moment = time.gmtime(start - (verdicts - number))
            events.append(
                told(
                    "verify" if number % 2 else "sign",
                    "failed" if bad else "passed" if number % 2 else "done",
                    dag=f"dag{number % dags:04}",
                    task=f"task{number % 7}",
                    run=f"run{number // dags}",
                    artifact=f"s3://models/m{number % 200}/{number}",
                    digest=f"sha256:{chance.randrange(dags * 10):064x}",
                    codes=("FILE_CHANGED",) if bad else (),
                    key="sha256:" + "ab" * 32,
                    time=time.strftime("%Y-%m-%dT%H:%M:%S", moment) + f".{number % 1000:06}+00:00",
                )
            )
        log.tell(*events)
        made += len(events)
    assert log.key_file
    return log.size


def _measured(folder: Path, times: int, dags: int, entries: int) -> Iterator[tuple[Any, ...]]:
    from airflow.api_fastapi.app import _AuthManagerState
    from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
    from starlette.testclient import TestClient

    from sealflow_airflow.ui.app import make_app
    from sealflow_airflow.ui.pages import World

    one = f"dag{dags // 2:04}"

    class Manager(SimpleAuthManager):
        """Airflow's own, with users who may see some DAGs."""

        def is_authorized_dag(self, **asked: Any) -> bool:
            seen = {"half": lambda dag: dag.endswith(("0", "2", "4", "6", "8")), "one": lambda dag: dag == one}
            mine = seen.get(asked["user"].username)
            if mine is not None:
                details = asked.get("details")
                if details is None or details.id is None:
                    return asked.get("access_entity") is not None
                return mine(details.id)
            return super().is_authorized_dag(**asked)

    manager = _AuthManagerState.instance = Manager()
    world = World()
    start = time.perf_counter()
    world.follower.refresh()
    yield f"index of {entries:,} entries, made anew", time.perf_counter() - start, "s"
    start = time.perf_counter()
    world.guarding.get(600)
    yield f"{dags:,} DAGs looked at for the first time", time.perf_counter() - start, "s"
    size = sum(path.stat().st_size for path in (folder / "pages").iterdir())
    yield "size of the index", size / 2**20, "MiB"
    client = TestClient(make_app(world), base_url="http://airflow.example")
    for name, role in (("admin", "admin"), ("half", "viewer"), ("one", "viewer")):
        token = manager.generate_jwt(SimpleAuthManagerUser(username=name, role=role))
        for title, path in _PAGES.items():
            if name == "one" and title == "DAGs":
                continue
            took = []
            for _ in range(times + 1):
                start = time.perf_counter()
                answer = client.get(path.format(one=one), headers={"authorization": f"Bearer {token}"})
                took.append((time.perf_counter() - start) * 1000)
                status = 404 if (name, title) == ("half", "Evidence of a run") and answer.status_code == 404 else 200
                assert answer.status_code == status, (name, path, answer.status_code, answer.text[:500])
                assert "being looked at" not in answer.text
            seen = {"admin": "who may see all", "half": "who may see 500 DAGs", "one": "who may see one DAG"}[name]
            bound = BOUND if title == "Trust" else None
            yield f"{title}, for one {seen}: p50", statistics.median(took[1:]), "ms", None, bound
            yield f"{title}, for one {seen}: p95", statistics.quantiles(took[1:], n=20)[-1], "ms", None, bound


if __name__ == "__main__":
    if os.environ.get("AIRFLOW_HOME"):
        main()
