"""Whole DAG runs with the sealed XCom backend, by Airflow's own command line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.airflow.home import AirflowHome, Run

pytestmark = [pytest.mark.airflow, pytest.mark.slow]

SECRET = "hunter2-9f2c-not-a-word"
DAGS = Path(__file__).parent / "xcom_dags"


def environment(home: AirflowHome) -> dict[str, str]:
    key = home.folder / "xcom.key"
    key.write_bytes(bytes(range(32)))
    key.chmod(0o600)
    return {
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__CORE__XCOM_BACKEND": "sealflow_airflow.xcom.SealedXComBackend",
        "AIRFLOW__SEALFLOW__XCOM_KEYS": f"aes:{key}?name=deployment",
    }


def run(home: AirflowHome, dag: str, conf: Mapping[str, str] | None = None, **options: str) -> Run:
    conf = conf or {"database": str(home.home / "airflow.db")}
    return home.run(dag, conf, env=environment(home) | options)


def common_io(home: AirflowHome) -> dict[str, str]:
    folder = home.folder / "xcom-objects"
    folder.mkdir()
    return {
        "AIRFLOW__SEALFLOW__XCOM_STORAGE": "airflow.providers.common.io.xcom.backend.XComObjectStorageBackend",
        "AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_PATH": f"file://{folder}",
        "AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_THRESHOLD": "2000",
    }


# One run for several tests: starting Airflow takes longer than all of its tasks.
@pytest.fixture(scope="module")
def in_database(airflow_home: AirflowHome) -> Run:
    return run(airflow_home, "sealed_xcoms")


@pytest.mark.parametrize("storage", [False, True], ids=["database", "object-storage"])
def test_tasks_hand_each_other_sealed_values(airflow_home: AirflowHome, in_database: Run, storage: bool):
    done = run(airflow_home, "sealed_xcoms", **common_io(airflow_home)) if storage else in_database
    assert {name for name, state in done.states.items() if state != "success"} == {"not_chosen"}, done.output
    assert done.states["not_chosen"] == "skipped"
    assert done.states.keys() >= {"total", "joined", "chosen", "templated", "times_two[2]"}
    assert all(value["sealed_by"] == "sealflow" for value in done.xcoms.values())
    assert {value["key_id"] for value in done.xcoms.values()} == {"deployment"}
    assert SECRET not in json.dumps(list(done.xcoms.values()))
    # The scheduler reads this one, and has no key.
    assert done.xcoms["choose", "skipmixin_key"]["followed"] == ["chosen"]
    large = done.xcoms["chosen", "return_value"]["sealed"]
    assert large.startswith("file://") is storage
    folder = airflow_home.folder / "xcom-objects"
    stored = [path.read_bytes() for path in folder.rglob("*") if path.is_file()] if storage else []
    assert len(stored) == (1 if storage else 0)
    assert not any(SECRET.encode() in data for data in stored)


def test_values_that_were_moved_altered_or_injected_are_refused(airflow_home: AirflowHome):
    done = run(airflow_home, "swapped_xcoms")
    assert done.states["attack"] == "success", done.output
    for task, code in {
        "read_salary": "VALUE_MISPLACED",
        "read_bonus": "VALUE_ALTERED",
        "read_clear": "VALUE_CLEAR",
    }.items():
        assert (done.states[task], done.tries[task]) == ("failed", 1), done.output
        assert done.failed_with(task, code), done.output
    assert "was used" not in done.output.replace('raise AssertionError("was used")', "").replace("echo 'was used'", "")


def test_the_rest_api_shows_envelopes_and_what_is_posted_there_is_refused(airflow_home: AirflowHome, in_database: Run):
    first = in_database
    stored = first.xcoms["total", "return_value"]
    api = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("xcom_rest.py")), "sealed_xcoms", first.run_id],
        env=airflow_home.environment(**environment(airflow_home), AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS="True"),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert api.returncode == 0, api.stderr[-3000:]
    told = json.loads(api.stdout.splitlines()[-1])
    assert told["posted"] == 201
    assert told["shown"][0] == stored
    # Whatever it is turned into, it is the envelope.
    assert len(told["shown"]) == 4
    assert all("sealed_by" in str(shown) and stored["sealed"] in str(shown) for shown in told["shown"])

    done = run(airflow_home, "pulls_from_elsewhere", {"run": first.run_id})
    assert done.states == {"left": "success", "posted": "failed"}, done.output
    assert done.tries["posted"] == 1
    assert done.failed_with("posted", "VALUE_CLEAR"), done.output
