"""Installing sealflow changes nothing until there is a policy, and switching that on and off changes no stored DAG."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.airflow.home import Run
from tests.airflow.machine import Machine

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    # One worker makes the runs that all of these compare.
    pytest.mark.xdist_group("airflow-upgrade"),
]

STATES = ("absent", "installed", "policy", "switched-off", "uninstalled")


class Upgraded(Machine):
    """What one can see of Airflow before and after."""

    def versions(self) -> list[tuple[object, ...]]:
        """Return what Airflow stored of the DAGs: versions, hashes and every byte."""
        return self.home.rows(
            "SELECT v.dag_id, v.version_number, s.dag_hash, s.data, s.data_compressed FROM dag_version v "
            "JOIN serialized_dag s ON s.dag_version_id = v.id ORDER BY v.dag_id, v.version_number"
        )

    def files(self, run: str) -> set[str]:
        """Return the names of all files that commands and tasks left, but for Airflow's logs."""
        places = (self.home.home, self.home.work, self.home.dags)
        names = {str(path.relative_to(self.home.folder)) for place in places for path in place.rglob("*")}
        return {name.replace(run, "RUN") for name in names if not name.startswith("home/logs")}


@dataclass
class Seen:
    """What was seen in one of the states."""

    versions: list[tuple[object, ...]]
    run: Run | None = None
    files: frozenset[str] = frozenset()
    extras: tuple[object, ...] = ()


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Seen]:
    machine = Upgraded(tmp_path_factory.mktemp("upgrade"))
    home = machine.home
    models = machine.guarded.folder / "models"
    home.command("db", "migrate", env=machine.options())
    found: dict[str, Seen] = {}

    def run(state: str, options: dict[str, str]) -> None:
        shutil.rmtree(models, ignore_errors=True)
        events = home.rows("SELECT coalesce(max(id), 0) FROM asset_event")[0][0]
        done = home.run("kinds_made", {}, env=options)
        extras = home.rows(
            "SELECT a.name, e.extra FROM asset_event e JOIN asset a ON a.id = e.asset_id "
            "WHERE e.id > ? ORDER BY a.name",
            events,
        )
        found[state] = Seen(machine.versions(), done, frozenset(machine.files(done.run_id)), tuple(extras))

    def parse(state: str, options: dict[str, str]) -> None:
        home.command("dags", "reserialize", env=options)
        found[state] = Seen(machine.versions())

    assert machine.entry_points() == []
    run("absent", machine.options())
    machine.install()
    assert machine.entry_points() == ["airflow.plugins", "airflow.policy", "apache_airflow_provider", "console_scripts"]
    run("installed", machine.options())
    run("policy", machine.options(policy=True))
    parse("switched-off", machine.options())
    machine.uninstall()
    assert machine.entry_points() == []
    parse("uninstalled", machine.options())
    assert set(found) == set(STATES)
    return found


@pytest.mark.parametrize("state", STATES[1:])
def test_no_stored_dag_changes(seen: dict[str, Seen], state: str):
    """Each DAG has runs, so whatever changed would make a new version."""
    assert {row[:2] for row in seen["absent"].versions} >= {("kinds_made", 1)}
    assert all(row[3] or row[4] for row in seen["absent"].versions)
    assert seen[state].versions == seen["absent"].versions


def test_the_policy_was_on(seen: dict[str, Seen]):
    """What the others compare would otherwise be nothing three times."""
    under = seen["policy"]
    assert under.run
    assert set(under.run.states.values()) == {"success", "skipped"}, under.run.output
    assert "outlets signed" in under.run.output
    assert any("sealflow" in json.loads(str(extra)) for _, extra in under.extras)  # type: ignore[misc]
    assert any("evidence" in name for name in under.files)


def test_without_a_policy_tasks_do_what_they_did(seen: dict[str, Seen]):
    before, after = seen["absent"], seen["installed"]
    assert before.run
    assert after.run
    assert set(before.run.states.values()) == {"success", "skipped"}, before.run.output
    for name in ("state", "states", "tries", "xcoms"):
        assert getattr(after.run, name) == getattr(before.run, name), after.run.output
    assert [name for name, _ in after.extras] == [name for name, _ in before.extras]
    without_run = [
        [json.dumps(json.loads(str(extra))).replace(one.run.run_id, "RUN") for _, extra in one.extras]  # type: ignore[misc,union-attr]
        for one in (before, after)
    ]
    assert without_run[0] == without_run[1]


def test_without_a_policy_no_file_is_left(seen: dict[str, Seen]):
    assert seen["installed"].files == seen["absent"].files
    assert not [name for name in seen["installed"].files if "sealflow" in name or "evidence" in name]


def test_without_a_policy_no_task_says_a_word_of_it(seen: dict[str, Seen]):
    assert seen["installed"].run
    said = [line for line in seen["installed"].run.output.splitlines() if "sealflow" in line.lower()]
    assert said == []


LOADED = """
import json, sys, time
import airflow.sdk, airflow.settings, airflow.plugins_manager
from airflow.policies import hookimpl
for name in [name for name in sys.modules if name.partition(".")[0] in ("sealflow", "sealflow_airflow")]:
    del sys.modules[name]
before, start = set(sys.modules), time.process_time()
import sealflow_airflow.policy, sealflow_airflow.plugin, sealflow_airflow.get_provider_info
spent = time.process_time() - start
print(json.dumps([spent, sorted(set(sys.modules) - before)]))
"""


def test_what_an_airflow_process_loads_without_a_policy_is_small(tmp_path: Path):
    """At most 50 ms of processor time, the best of three, since the machine may be busy."""
    found = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", LOADED], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120
        )
        found.append(json.loads(done.stdout.splitlines()[-1]))
    spent, modules = min(found)
    assert spent < 0.05
    assert "sealflow_airflow.policy" in modules
    assert not [name for name in modules if name.startswith(("sealflow.actions", "sealflow.keys", "cryptography"))]
    assert not {"sealflow_airflow.guard", "sealflow_airflow.stub", "sealflow_airflow.refusing"} & set(modules)
