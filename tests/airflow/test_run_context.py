"""The core learns from Airflow which run it is in, and plain task bodies need say nothing."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.airflow.home import statements
from tests.audit_events import read_events

pytestmark = pytest.mark.airflow

SECRET = "hunter2-9f2c"


@pytest.fixture
def in_task(context):
    """A running task, as the task runner makes it."""
    from airflow.sdk.execution_time.context import set_current_context

    with set_current_context(context):
        yield context


def provenance(folder: Path) -> dict[str, Any]:
    (found,) = [s for s in statements(folder) if s["predicateType"] == "https://slsa.dev/provenance/v1"]
    return found["predicate"]


def test_outside_of_a_task_there_is_no_run():
    import airflow.sdk  # noqa: F401

    from sealflow_airflow.run_context import current

    assert current() is None


def test_task_body_signs_and_opens_by_the_connection(connection, in_task, artifact):
    import sealflow

    ref = sealflow.sign(artifact)
    with sealflow.verified(ref, name="measurements", producer="airflow:train/fit") as path:
        assert (Path(path) / "january.csv").read_bytes() == (artifact / "january.csv").read_bytes()


def test_what_a_run_verified_stands_in_what_it_signs(connection, in_task, artifact, tmp_path):
    import sealflow

    ref = sealflow.sign(artifact)
    with sealflow.verified(ref):
        model = tmp_path / "models" / "model.bin"
        model.parent.mkdir()
        model.write_bytes(b"model")
        sealflow.sign(model)
    (dependency,) = provenance(model.parent)["buildDefinition"]["resolvedDependencies"]
    assert dependency["name"] == "measurements"
    assert dependency["digest"] == {"dirHash": str(ref.digest).partition(":")[2]}


def test_refusal_in_a_task_body_ends_the_task(connection, in_task, artifact):
    """Airflow tries a task again on any exception but its own; the same bytes would be refused again."""
    from airflow.sdk.exceptions import AirflowFailException

    import sealflow

    ref = sealflow.sign(artifact)
    (artifact / "units.json").write_bytes(b"{ }")
    with pytest.raises(AirflowFailException) as caught, sealflow.verified(ref):
        pytest.fail("refused bytes were handed out")
    assert isinstance(caught.value, sealflow.VerificationError)
    assert caught.value.verdict.status == "failed"
    assert "FILE_CHANGED" in str(caught.value)


def test_outage_in_a_task_body_may_be_tried_again(connection, in_task, closed_port):
    from airflow.sdk.exceptions import AirflowFailException

    import sealflow

    with pytest.raises(sealflow.VerificationError) as caught, sealflow.verified("s3://bucket/key"):
        pytest.fail("unverifiable bytes were handed out")
    assert not isinstance(caught.value, AirflowFailException)
    assert caught.value.verdict.status == "unverifiable"


def test_without_identities_nothing_is_handed_out(connect, key, in_task, artifact):
    import sealflow

    connect(extra={"signer": key.signer})
    ref = sealflow.sign(artifact)
    with pytest.raises(sealflow.VerificationError, match="IDENTITY_RULE_MISSING"), sealflow.verified(ref):
        pytest.fail("handed out without a rule")


def test_refused_connection_stops_the_task_body(connect, key, in_task, artifact):
    import sealflow

    connect(password=SECRET, extra={"signer": key.signer})
    with pytest.raises(sealflow.UsageError, match="CONNECTION_REFUSED") as caught:
        sealflow.sign(artifact)
    assert SECRET not in str(caught.value)
    assert not list(artifact.parent.glob("*.evidence"))


def test_parameters_are_named_but_never_told(connection, in_task, artifact, caplog):
    import sealflow

    in_task["params"] = {"rate": 0.1, "token": SECRET}
    in_task["dag_run"] = SimpleNamespace(conf={"note": SECRET, "token": SECRET})
    with caplog.at_level(logging.DEBUG):
        sealflow.sign(artifact)
    parameters = provenance(artifact.parent)["buildDefinition"]["externalParameters"]["parameters"]
    assert parameters == {name: {"redacted": True} for name in ("note", "rate", "token")}
    assert SECRET not in json.dumps(list(statements(artifact.parent)))
    assert SECRET not in caplog.text


def test_parameters_are_proved_under_the_deployment_key(connection, in_task, artifact, monkeypatch, tmp_path):
    import sealflow

    key = b"0123456789abcdef0123456789abcdef"
    (tmp_path / "parameter.key").write_bytes(key)
    monkeypatch.setenv("SEALFLOW_PARAMETER_KEY", str(tmp_path / "parameter.key"))
    in_task["params"] = {"token": SECRET, "layers": [3, {"b": 1, "a": 2}]}
    sealflow.sign(artifact)
    parameters = provenance(artifact.parent)["buildDefinition"]["externalParameters"]["parameters"]

    def proof(value: str) -> dict[str, str]:
        return {"hmac-sha256": hmac.new(key, value.encode(), hashlib.sha256).hexdigest()}

    assert parameters == {"token": proof(SECRET), "layers": proof('[3, {"a": 2, "b": 1}]')}


@pytest.mark.parametrize(
    "conf",
    [
        pytest.param({f"p{number:04}": number for number in range(5000)}, id="many"),
        pytest.param({"n" * 5000: 1, "kept": 2}, id="long-name"),
        pytest.param(None, id="none"),
    ],
)
def test_parameters_never_keep_a_run_from_signing(connection, in_task, artifact, conf, caplog):
    import sealflow
    from sealflow_airflow.run_context import MAX_PARAMETERS

    in_task["dag_run"] = SimpleNamespace(conf=conf)
    sealflow.sign(artifact)
    parameters = provenance(artifact.parent)["buildDefinition"]["externalParameters"]["parameters"]
    assert len(parameters) <= MAX_PARAMETERS
    assert ("parameters" in caplog.text) is (conf is not None)


def test_audit_event_names_the_run(connection, in_task, artifact, monkeypatch, tmp_path):
    import sealflow

    monkeypatch.setenv("AIRFLOW__SEALFLOW__AUDIT_SPOOL", str(tmp_path / "spool"))
    sealflow.sign(artifact)
    intent, outcome = read_events(tmp_path / "spool")
    assert (intent["phase"], outcome["phase"], outcome["outcome"]) == ("intent", "outcome", "done")
    assert intent["run"]["workflow"] == "train"
