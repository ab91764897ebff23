"""A whole Airflow with the gate in its API server: what authors do in their own process, and what Airflow believes.

The guard's own tests show what is refused where it is used; here it is refused before anybody is told.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.airflow.home import AirflowHome
from tests.airflow.standalone import STANDALONE, Standalone, standalone, until
from tests.airflow.test_guard_runs import Guarded
from tests.pki import write_key

pytestmark = STANDALONE

DAGS = Path(__file__).parent / "gate_dags"
STARTED = (
    *("gate_good", "gate_skipped", "gate_silent", "gate_forged", "gate_replay", "gate_direct", "gate_reads"),
    *("gate_false", "gate_unguarded"),
)


class Gated(Guarded):
    """A running Airflow with the gate, and its artifacts."""

    running: Standalone
    env: dict[str, str]
    first: dict[str, str]

    def done(self, dag: str) -> dict[str, tuple[str, int]]:
        """Wait for the end of a DAG's first run."""
        return self.running.finished(dag, self.first[dag])

    def emitted(self, asset: str) -> int:
        """Return how many events of an asset there are."""
        events = "SELECT count(*) FROM asset_event e JOIN asset a ON a.id = e.asset_id WHERE a.name = ?"
        return int(self.home.rows(events, f"gate-{asset}")[0][0])

    def outcomes(self, action: str, **run: str) -> list[dict[str, Any]]:
        """Return the outcome events of an action about a task."""
        return [
            event
            for event in self.home.events()
            if event["action"] == action
            and event["phase"] == "outcome"
            and all(event["run"].get(name) == value for name, value in run.items())
        ]

    def refused(self, dag: str, code: str) -> None:
        """See that a DAG's only task was refused by the gate, with a sentence in its log and an audit event."""
        assert self.done(dag) == {"make": ("failed", 1)}, self.running.log(dag)
        assert code in {item for event in self.outcomes("gate", workflow=dag) for item in event["codes"]}
        assert "sealflow refuses this success" in self.running.log(dag)


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.server)])
def gated(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gated]:
    folder = tmp_path_factory.mktemp(f"gate-{request.param}")
    server = request.getfixturevalue("postgresql") if request.param == "postgresql" else None
    home = AirflowHome(folder, write_key(folder, "signing"), server)
    home.add_dags(DAGS)
    made = Gated(home, "gate")
    made.env = made.environment(
        AIRFLOW__CORE__DAGS_FOLDER=str(home.dags),
        AIRFLOW__SEALFLOW__GATE="enforce",
        AIRFLOW__SEALFLOW__GATE_ACCESS_AUDIT="True",
        AIRFLOW__SEALFLOW__NOTARY_SIGNER=write_key(folder, "notary").signer,
        AIRFLOW__SEALFLOW__NOTARY_MODE="hash",
        AIRFLOW__SEALFLOW__NOTARY_STORE=str(folder / "notary-store"),
    )
    with standalone(home, made.env) as made.running:
        until(lambda: home.rows("SELECT count(*) FROM dag")[0][0] == len(STARTED) or None, 120, "the DAGs")
        running = made.running
        running.call("POST", "/api/v2/variables", {"key": "gate_variable", "value": "hidden value"})
        connection = {"connection_id": "gate_connection", "conn_type": "http", "password": "tops3cret"}
        running.call("POST", "/api/v2/connections", connection)
        made.first = {dag: running.trigger(dag) for dag in STARTED}
        yield made


def test_signed_outlet_passes_and_the_notary_has_read_its_bytes(gated: Gated) -> None:
    assert gated.done("gate_good") == {"make": ("success", 1)}, gated.running.log("gate_good")
    assert gated.emitted("good") == 1
    assert [event["outcome"] for event in gated.outcomes("gate", workflow="gate_good")] == ["passed"]
    until(lambda: gated.outcomes("notary", workflow="gate_good") or None, 60, "the notary")
    assert [event["outcome"] for event in gated.outcomes("notary", workflow="gate_good")] == ["done"]
    assert list((gated.home.folder / "notary-store").rglob("notary-*.json"))


@pytest.mark.parametrize(
    ("dag", "asset", "code"),
    [
        pytest.param("gate_skipped", "skipped", "OUTLET_UNSIGNED", id="the-hook-that-signs-is-skipped"),
        pytest.param("gate_silent", "silent", "OUTLET_UNSIGNED", id="the-outlet-is-taken-off-the-task"),
        pytest.param("gate_unguarded", "unguarded", "OUTLET_UNSIGNED", id="policies-are-replaced-in-the-dag-file"),
    ],
)
def test_success_without_evidence_is_refused(gated: Gated, dag: str, asset: str, code: str) -> None:
    gated.refused(dag, code)
    assert gated.emitted(asset) == 0


def test_outlet_that_another_task_claims_is_refused_before_anybody_is_told(gated: Gated) -> None:
    gated.refused("gate_forged", "OUTLET_UNDECLARED")
    gated.done("gate_good")
    assert gated.emitted("good") == 1


def test_event_of_an_older_run_that_is_told_again_is_refused(gated: Gated) -> None:
    running = gated.running
    assert gated.done("gate_replay") == {"make": ("success", 1)}, running.log("gate_replay")
    kept = gated.extra("replay")["sealflow"]
    (gated.folder / "replay.json").write_text(json.dumps(kept))
    again = running.trigger("gate_replay")
    assert running.finished("gate_replay", again) == {"make": ("failed", 1)}
    codes = {code for event in gated.outcomes("gate", workflow="gate_replay", run=again) for code in event["codes"]}
    assert codes == {"PRODUCER_MISMATCH"}
    assert gated.emitted("replay") == 1


def test_message_past_airflows_own_client_is_refused(gated: Gated) -> None:
    assert gated.done("gate_direct") == {"make": ("success", 1)}, gated.running.log("gate_direct")
    assert "answered 403" in gated.running.log("gate_direct"), gated.running.log("gate_direct")
    assert "OUTLET_UNDECLARED" in gated.running.log("gate_direct")
    gated.done("gate_good")
    assert gated.emitted("good") == 1


def test_false_bytes_that_the_author_signed_pass_the_gate_and_not_the_notary(gated: Gated) -> None:
    """The gate does not read bytes; who does is the notary, and whoever uses the artifact."""
    assert gated.done("gate_false") == {"make": ("success", 1)}, gated.running.log("gate_false")
    until(lambda: gated.outcomes("notary", workflow="gate_false") or None, 60, "the notary")
    assert [event["codes"] for event in gated.outcomes("notary", workflow="gate_false")] == [["ARTIFACT_CHANGED"]]


def test_reads_of_a_task_are_recorded_without_values(gated: Gated) -> None:
    assert gated.done("gate_reads") == {"read": ("success", 1)}, gated.running.log("gate_reads")

    def read() -> set[str] | None:
        found = {
            event["artifact"]
            for action in ("variable-read", "connection-read")
            for event in gated.outcomes(action, workflow="gate_reads", task="read", run=gated.first["gate_reads"])
            if event["outcome"] == "done"
        }
        return found if len(found) > 1 else None

    assert until(read, 60, "the audit events") >= {
        "airflow:variable/gate_variable",
        "airflow:connection/gate_connection",
    }
    for path in gated.home.spool.rglob("*"):
        if path.is_file():
            assert b"tops3cret" not in path.read_bytes()
            assert b"hidden value" not in path.read_bytes()


def test_doctor_sees_the_gate_where_workers_report(gated: Gated) -> None:
    port = str(gated.running.port)
    env = gated.home.environment(
        **gated.env,
        AIRFLOW__API__BASE_URL=f"http://127.0.0.1:{port}",
        AIRFLOW__CORE__EXECUTION_API_SERVER_URL=f"http://127.0.0.1:{port}/execution/",
    )
    done = subprocess.run(
        [gated.home.python, "-m", "airflow", "sealflow", "doctor", "--json"],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=gated.home.folder,
    )
    body = json.loads(done.stdout.splitlines()[-1])
    found = [(line["state"], line["found"]) for line in body["lines"] if line["check"] == "gate"]
    assert ("ok", f"it answers at http://127.0.0.1:{port}/execution/") in found, found
    assert {state for state, _ in found} == {"ok"}


def test_execution_api_apart_is_guarded_where_it_is_started_as_the_guide_says(gated: Gated) -> None:
    """`--apps execution` loads no plugin; our own application of the same is asked by the same doctor."""
    from sealflow_airflow.doctor.server import _asked
    from tests.airflow.home import unused_port

    port = unused_port()
    command = ["uvicorn", "--factory", "sealflow_airflow.gate.execution_app:create", "--port", str(port)]
    with (gated.home.folder / "apart.log").open("wb") as file:
        process = subprocess.Popen(
            [gated.home.python, "-m", *command],
            env=gated.home.environment(**gated.env),
            cwd=gated.home.folder,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        url = f"http://127.0.0.1:{port}/execution/"
        line = until(lambda: line if (line := _asked(url)).state != "unknown" else None, 120, "the application")
        assert (line.state, line.found) == ("ok", f"it answers at {url}"), (gated.home.folder / "apart.log").read_text()
    finally:
        process.terminate()
        process.wait(20)
