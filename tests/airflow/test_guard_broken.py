"""A broken installation, configuration or policy is one clear error of who needs it, and no process of Airflow dies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.airflow.home import AirflowHome
from tests.airflow.machine import Machine
from tests.airflow.standalone import Standalone, standalone, until

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    # One Airflow at a time.
    pytest.mark.xdist_group("airflow-standalone"),
]

# As if the library were not there for us; Airflow cannot start without it.
NO_CRYPTOGRAPHY = """
import builtins
_import = builtins.__import__

def _refusing(name, globals=None, locals=None, fromlist=(), level=0):
    importer = str((globals or {}).get("__name__"))
    if name.partition(".")[0] == "cryptography" and importer.partition(".")[0].startswith("sealflow"):
        raise ModuleNotFoundError("No module named 'cryptography'", name="cryptography")
    return _import(name, globals, locals, fromlist, level)

builtins.__import__ = _refusing
"""

DAGS = """
import os
from datetime import datetime, timedelta
from pathlib import Path

from airflow.sdk import Asset, dag, task

PLACE = Path(os.environ["GUARD_FOLDER"], "models", "model")
SETTINGS = {
    "schedule": None,
    "is_paused_upon_creation": False,
    "start_date": datetime(2020, 1, 1),
    "default_args": {"retries": 1, "retry_delay": timedelta(seconds=0)},
}

@dag(**SETTINGS)
def managed():
    @task(outlets=[Asset(f"file://{PLACE}")])
    def make():
        PLACE.parent.mkdir()
        PLACE.write_text("weights")

    make()

@dag(**SETTINGS)
def free():
    @task
    def work():
        return "done"

    work()

managed()
free()
"""


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    machine = Machine(tmp_path_factory.mktemp("broken"))
    machine.install()
    (machine.installation / "sitecustomize.py").write_text(NO_CRYPTOGRAPHY)
    (machine.home.dags / "dags.py").write_text(DAGS)
    return machine


def options(machine: Machine) -> dict[str, str]:
    return machine.options(policy=True) | {"AIRFLOW__CORE__DAGS_FOLDER": str(machine.home.dags)}


@pytest.fixture(scope="module")
def running(broken: Machine) -> Iterator[Standalone]:
    with standalone(broken.home, options(broken)) as running:
        until(lambda: broken.home.rows("SELECT count(*) FROM dag")[0][0] == 2 or None, 120, "the DAGs")
        yield running


def test_airflow_runs_what_needs_no_guard(running: Standalone):
    assert running.finished("free", running.trigger("free")) == {"work": ("success", 1)}, running.log("free")
    assert running.home.rows("SELECT * FROM import_error") == []
    health = running.call("GET", "/api/v2/monitor/health")
    assert {name: part["status"] for name, part in health.items()} == dict.fromkeys(
        ("metadatabase", "scheduler", "triggerer", "dag_processor"), "healthy"
    )


def test_each_task_with_assets_says_what_is_wrong_and_is_not_run(broken: Machine, running: Standalone):
    # Another worker may be sound, so it is tried again.
    assert running.finished("managed", running.trigger("managed")) == {"make": ("failed", 2)}
    log = running.log("managed")
    assert "sealflow cannot be loaded here (ModuleNotFoundError: No module named 'cryptography')" in log
    assert "Repair the installation on this worker." in log
    assert not (broken.guarded.folder / "models").exists()


def test_the_doctor_names_one_fault(broken: Machine, running: Standalone):
    told = broken.home.command("sealflow", "doctor", env=options(broken), status=3)
    faults = [line for line in told.splitlines() if "cryptography" in line]
    assert faults == ["fault   installation: ModuleNotFoundError: No module named 'cryptography'"], told
    assert "unknown" not in told


def unsigned(home: AirflowHome) -> dict[str, str]:
    policy = home.folder / "policy.json"
    policy.write_text('{"apiVersion": "sealflow/v1"}')
    return {"POLICY": str(policy), "POLICY_KEYS": str(home.key.public)}


def no_keys(home: AirflowHome) -> dict[str, str]:
    return {"POLICY": str(home.folder / "policy.json")}


def no_number(home: AirflowHome) -> dict[str, str]:
    return unsigned(home) | {"POLICY_MINIMUM_VERSION": "three"}


@pytest.mark.parametrize("fault", [unsigned, no_keys, no_number])
def test_components_start_under_a_policy_that_is_not_to_be_had(airflow_home: AirflowHome, tmp_path: Path, fault):
    dags = tmp_path / "dags"
    dags.mkdir()
    (dags / "dags.py").write_text(DAGS)
    env = {f"AIRFLOW__SEALFLOW__{name}": value for name, value in fault(airflow_home).items()}
    env |= {"AIRFLOW__CORE__DAGS_FOLDER": str(dags), "GUARD_FOLDER": str(tmp_path)}
    # Each ends with status 0, or this fails.
    airflow_home.command("dag-processor", "--num-runs", "1", env=env)
    airflow_home.command("scheduler", "--num-runs", "1", "--skip-serve-logs", env=env)
    assert airflow_home.rows("SELECT * FROM import_error") == []
    told = airflow_home.command("sealflow", "doctor", env=env, status=5)
    (line,) = [line for line in told.splitlines() if line.startswith(("fault", "unknown"))]
    assert line.startswith("unknown policy: POLICY_UNAVAILABLE"), told
