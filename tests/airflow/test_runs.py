"""Whole DAG runs by Airflow's own command line on SQLite."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from tests.airflow.conftest import EXAMPLES
from tests.airflow.home import AirflowHome, Run, statements, unused_port
from tests.pki import write_key

pytestmark = [pytest.mark.airflow, pytest.mark.slow]

SECRET = "hunter2-9f2c-not-a-word"


def test_every_dag_file_loads():
    """The whole folder, as a user who points Airflow at it would load it."""
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(str(EXAMPLES), bundle_path=EXAMPLES)
    assert bag.import_errors == {}
    assert set(bag.dags) >= {
        "example_sealed_task",
        "example_operators",
        "example_task_sealed_decorator",
        "example_encrypted_transfer",
        "example_gate_on_lineage",
    }
    assert {Path(dag.fileloc).parent.name for dag in bag.dags.values()} == {"airflow"}


@pytest.mark.parametrize(
    ("dag", "last", "value"),
    [
        pytest.param("example_sealed_task", "score", 28, id="task-bodies"),
        pytest.param("example_operators", "mean", 21.0, id="operators"),
        pytest.param("example_task_sealed_decorator", "load", ["1", "2", "3"], id="decorator"),
        pytest.param("readme_dag", "score", '{"slope": 2, "intercept": 1}', id="readme"),
    ],
)
def test_example_runs(airflow_home: AirflowHome, dag: str, last: str, value: object):
    folder = airflow_home.folder_for(dag)
    conf = {"folder": str(folder), "evidence_store": str(folder / "evidence"), "model": str(folder / "model.json")}
    run = airflow_home.run(dag, conf)
    assert set(run.states.values()) == {"success"}, run.output
    assert run.xcoms[last, "return_value"] == value
    producers = {
        statement["predicate"]["buildDefinition"]["externalParameters"]["producer"]
        for statement in statements(folder)
        if "buildDefinition" in statement["predicate"]
    }
    assert producers
    assert all(producer.startswith(f"airflow:{dag}/") for producer in producers)


def test_example_of_an_encrypted_transfer(airflow_home: AirflowHome):
    folder = airflow_home.folder_for("encrypted")
    store = folder / "store"
    run = airflow_home.run("example_encrypted_transfer", {"folder": str(folder), "store": str(store)})
    assert set(run.states.values()) == {"success"}, run.output
    assert run.xcoms["score", "return_value"] == 21
    sent, promoted, fetched = (run.xcoms[task, "return_value"] for task in ("upload", "promote", "fetch"))
    assert (sent["encrypted"], promoted["encrypted"], fetched["encrypted"]) == (True, True, False)
    assert sent["digest"] == promoted["digest"] == fetched["digest"]
    assert {run.xcoms[task, "verdict"]["status"] for task in ("promote", "fetch")} == {"passed"}
    assert (folder / "fetched" / "README.md").read_bytes() == (folder / "line" / "README.md").read_bytes()
    # Nothing of it can be read in the store: no content, no name of a file.
    stored = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    assert {path.name for path in stored if path.suffix == ".enc"} == {"line.enc"}
    words = [b"slope", b"README", b"weights", b"through points"]
    assert [(path, word) for path, data in stored.items() for word in words if word in data] == []
    (promotion,) = [s for s in statements(store) if s["predicateType"].startswith("urn:sealflow:predicate:promotion")]
    assert promotion["predicate"]["producer"] == "airflow:example_encrypted_transfer/promote"


# One run for all refusals: starting Airflow takes longer than all of its tasks.
@pytest.fixture(scope="module")
def refusals(airflow_home: AirflowHome) -> Run:
    folder = airflow_home.folder_for("refusals")
    other = write_key(folder, "other")
    return airflow_home.run(
        "refusals",
        {"folder": str(folder)},
        env={
            "AIRFLOW_CONN_SEALFLOW_NOBODY": airflow_home.connection(signer=other.signer),
            "AIRFLOW_CONN_SEALFLOW_LEAKY": json.dumps({"conn_type": "sealflow", "password": SECRET}),
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{unused_port()}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "1",
        },
    )


@pytest.mark.parametrize(
    ("task", "code"),
    [
        pytest.param("gate", "FILE_CHANGED", id="operator"),
        pytest.param("body", "FILE_CHANGED", id="task-body"),
        pytest.param("sealed", "FILE_CHANGED", id="decorator"),
        pytest.param("fetch", "MESSAGE_ALTERED", id="download"),
        pytest.param("promote", "MESSAGE_ALTERED", id="promotion"),
        pytest.param("nobody", "IDENTITY_RULE_MISSING", id="nobody-is-trusted"),
        pytest.param("missing_key", "KEY_MISSING", id="wrong-parameter"),
        pytest.param("leaky", "CONNECTION_REFUSED", id="connection-with-a-password"),
    ],
)
def test_refused_on_the_first_try_with_retries_left(refusals: Run, task: str, code: str):
    assert (refusals.states[task], refusals.tries[task]) == ("failed", 1)
    assert refusals.failed_with(task, code), refusals.output
    assert SECRET not in refusals.output


def test_nothing_runs_behind_a_gate_that_refused(refusals: Run):
    assert refusals.states["behind_the_gate"] == "upstream_failed"
    assert refusals.states["passes"] == "success"
    assert refusals.state == "failed"
    assert "was used" not in refusals.output.replace("raise AssertionError", "")


def test_verdict_is_pushed_with_a_refusal(refusals: Run):
    verdict = refusals.xcoms["gate", "verdict"]
    assert verdict["status"] == "failed"
    assert verdict["findings"][0]["code"] == "FILE_CHANGED"
    assert ("gate", "return_value") not in refusals.xcoms
    assert refusals.xcoms["passes", "verdict"]["status"] == "passed"


@pytest.mark.parametrize("task", ["unreachable", "unreachable_body", "unreachable_store"])
def test_unreachable_backend_is_tried_again(refusals: Run, task: str):
    assert (refusals.states[task], refusals.tries[task]) == ("failed", 3)
    assert refusals.failed_with(task, "BACKEND_UNAVAILABLE"), refusals.output


def test_secret_reaches_nothing_that_stays(airflow_home: AirflowHome):
    """A secret in params, conf, environment and a connection; evidence is signed and cannot be cleaned."""
    folder = airflow_home.folder_for("mapped")
    before = len(airflow_home.events())
    run = airflow_home.run(
        "mapped",
        {"folder": str(folder), "token": SECRET, "note": SECRET},
        env={
            "PLANTED": SECRET,
            "AIRFLOW_CONN_VAULT": json.dumps({"conn_type": "http", "password": SECRET, "extra": {"token": SECRET}}),
        },
    )
    assert set(run.states.values()) == {"success"}, run.output

    found = list(statements(folder))
    provenance = [s["predicate"] for s in found if "buildDefinition" in s["predicate"]]
    # The run did carry the secret: its names are there.
    assert all(
        set(p["buildDefinition"]["externalParameters"]["parameters"]) == {"folder", "note", "token"} for p in provenance
    )
    indexes = [p["buildDefinition"]["internalParameters"]["run"].get("map_index") for p in provenance]
    assert sorted(index for index in indexes if index is not None) == [0, 1, 2]
    inputs = [len(p["buildDefinition"]["resolvedDependencies"]) for p in provenance]
    assert sorted(inputs) == [0, 0, 0, 3, 3]

    events = airflow_home.events()[before:]
    # Three shards, two outputs, three inputs and two checks, each with intent and outcome.
    assert len(events) == 2 * (3 + 2 + 3 + 2)
    forms = [SECRET, base64.b64encode(SECRET.encode()).decode().rstrip("="), SECRET.encode().hex()]
    kept = {
        "evidence": json.dumps(found),
        "evidence files": "".join(path.read_text() for path in folder.rglob("*.json")),
        "audit log": json.dumps(events),
        "XCom": json.dumps(list(map(str, run.xcoms.values()))),
        "output": run.output,
        "logs": "".join(p.read_text(errors="replace") for p in (airflow_home.home / "logs").rglob("*.log")),
    }
    assert all(kept[name] for name in ("evidence", "audit log", "XCom", "output"))
    assert [(name, form) for name, text in kept.items() for form in forms if form in text] == []
