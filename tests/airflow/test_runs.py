"""Whole DAG runs by Airflow's own command line on SQLite."""

from __future__ import annotations

import base64
import json

import pytest

from sealflow.audit import AuditEvent
from tests.airflow.home import AirflowHome, Run, statements, unused_port
from tests.audit_events import entries
from tests.pki import write_key

pytestmark = [pytest.mark.airflow, pytest.mark.slow]

SECRET = "hunter2-9f2c-not-a-word"


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


def test_every_task_ends_its_audit_chain(airflow_home: AirflowHome, refusals: Run):
    """Operators and bodies, done and failed: their processes leave by os._exit."""
    chains: dict[str, list[AuditEvent]] = {}
    for entry in entries(airflow_home.spool):
        chains.setdefault(entry.writer, []).append(AuditEvent.parse(entry.event))
    bodies = [chain for chain in chains.values() if chain[0].run.task in ("body", "unreachable_body")]
    assert len(bodies) >= 2, "no body of a task wrote anything"
    for chain in chains.values():
        assert chain[-1].phase == "end", chain
        assert chain[-1].count == len(chain)
        assert all(event.run == chain[-1].run for event in chain)
        assert all(event.host for event in chain[:-1])


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
