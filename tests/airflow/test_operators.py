"""What each operator returns, pushes and raises, in a task context, over the real core."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.airflow.conftest import aws_connection
from tests.airflow.home import statements
from tests.pki import write_key

pytestmark = pytest.mark.airflow


def sign(context: dict[str, Any], artifact: Any, **parameters: Any) -> dict[str, Any]:
    from sealflow_airflow import SignArtifactOperator

    return SignArtifactOperator(task_id="sign", artifact=str(artifact), **parameters).execute(context)


def verify(context: dict[str, Any], artifact: Any, **parameters: Any) -> dict[str, Any]:
    from sealflow_airflow import VerifyArtifactOperator

    return VerifyArtifactOperator(task_id="verify", artifact=artifact, **parameters).execute(context)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("form", ["mapping", "json", "location", "uri"])
def test_signed_artifact_passes(connection, context, artifact, form):
    ref = sign(context, artifact)
    given = {"mapping": ref, "json": json.dumps(ref), "location": str(artifact), "uri": ref["uri"]}[form]
    assert verify(context, given) == ref
    verdict = context["ti"].pushed["verdict"]
    assert (verdict["status"], verdict["digest"], verdict["name"]) == ("passed", ref["digest"], "measurements")
    assert "CHECKED_NOT_HELD" in [finding["code"] for finding in verdict["findings"]]


def test_reference_of_a_location_opens(connection, context, artifact):
    import sealflow

    sign(context, artifact)
    ref = verify(context, str(artifact))
    with sealflow.verified(ref, identities=f"file:{connection.public}") as path:
        assert sorted(p.name for p in Path(path).iterdir()) == ["january.csv", "units.json"]


def test_provenance_names_the_run(connection, context, artifact):
    context["ti"].map_index, context["ti"].try_number = 4, 2
    sign(context, artifact, name="data")
    (provenance,) = [s for s in statements(artifact.parent) if s["predicateType"] == "https://slsa.dev/provenance/v1"]
    assert provenance["subject"][0]["name"] == "data"
    assert provenance["predicate"]["buildDefinition"]["internalParameters"]["run"] == {
        "orchestrator": "airflow",
        "workflow": "train",
        "task": "fit",
        "run": "manual__1",
        "map_index": 4,
        "attempt": 2,
        "instance": context["ti"].id,
    }
    assert provenance["predicate"]["runDetails"]["metadata"]["invocationId"] == "airflow:train/fit/manual__1/4#2"


def _flip(artifact: Path) -> dict[str, Any]:
    flip(artifact / "january.csv")
    return {}


def _swap(artifact: Path) -> dict[str, Any]:
    (artifact / "january.csv").rename(artifact / "x")
    (artifact / "units.json").rename(artifact / "january.csv")
    (artifact / "x").rename(artifact / "units.json")
    return {}


def _add(artifact: Path) -> dict[str, Any]:
    (artifact / "february.csv").write_text("day,value\n")
    return {}


def _remove(artifact: Path) -> dict[str, Any]:
    (artifact / "units.json").unlink()
    return {}


def _strip(artifact: Path) -> dict[str, Any]:
    for path in artifact.parent.rglob("*-*.json"):
        path.unlink()
    return {}


def _vanish(artifact: Path) -> dict[str, Any]:
    artifact.rename(artifact.with_name("elsewhere"))
    return {}


def _other_signer(artifact: Path) -> dict[str, Any]:
    return {"identities": f"file:{write_key(artifact.parent, 'other').public}"}


ATTACKS = {
    "flipped-byte": (_flip, "FILE_CHANGED"),
    "swapped-files": (_swap, "FILE_CHANGED"),
    "added-file": (_add, "FILE_UNSIGNED"),
    "removed-file": (_remove, "FILE_MISSING"),
    "stripped-evidence": (_strip, "EVIDENCE_MISSING"),
    "vanished-artifact": (_vanish, "ARTIFACT_MISSING"),
    "other-signer": (_other_signer, "SIGNER_NOT_ALLOWED"),
    "other-name": (lambda _: {"name": "model"}, "NAME_MISMATCH"),
    "other-producer": (lambda _: {"producer": "airflow:train/other"}, "PRODUCER_MISMATCH"),
    "no-identities": (lambda _: {"sealflow_conn_id": "signs_only"}, "IDENTITY_RULE_MISSING"),
}


@pytest.mark.parametrize(("attack", "code"), ATTACKS.values(), ids=ATTACKS.keys())
def test_refused_artifact_fails_for_good(connection, connect, context, artifact, attack, code):
    from airflow.sdk.exceptions import AirflowFailException

    connect("signs_only", extra={"signer": connection.signer})
    ref = sign(context, artifact)
    parameters = attack(artifact)
    with pytest.raises(AirflowFailException, match=code):
        verify(context, ref, **parameters)
    verdict = context["ti"].pushed["verdict"]
    assert verdict["status"] == "failed"
    assert code in [finding["code"] for finding in verdict["findings"]]


def test_subset_is_checked_alone(connection, context, artifact):
    from airflow.sdk.exceptions import AirflowFailException

    ref = sign(context, artifact)
    flip(artifact / "january.csv")
    assert verify(context, ref, files=["units.json"]) == ref
    with pytest.raises(AirflowFailException, match="FILE_CHANGED"):
        verify(context, ref, files=["january.csv"])


def unavailable(context: dict[str, Any]) -> pytest.ExceptionInfo[BaseException]:
    from airflow.sdk.exceptions import AirflowException

    with pytest.raises(AirflowException, match="BACKEND_UNAVAILABLE") as caught:
        verify(context, "s3://bucket/key")
    return caught


def test_unreachable_store_may_be_tried_again(connection, context, closed_port):
    from airflow.sdk.exceptions import AirflowFailException

    assert not isinstance(unavailable(context).value, AirflowFailException)
    assert context["ti"].pushed["verdict"]["status"] == "unverifiable"


def test_unreachable_store_may_be_tried_again_when_signing(connection, context, artifact, closed_port):
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    with pytest.raises(AirflowException) as caught:
        sign(context, artifact, evidence_store="s3://bucket/evidence")
    assert not isinstance(caught.value, AirflowFailException)


def test_audit_log_out_of_reach_may_be_tried_again(connection, context, artifact, monkeypatch):
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    monkeypatch.setenv("AIRFLOW__SEALFLOW__AUDIT_SPOOL", "/proc/sealflow")
    with pytest.raises(AirflowException, match="AUDIT_UNAVAILABLE") as caught:
        sign(context, artifact)
    assert not isinstance(caught.value, AirflowFailException)
    assert not list(artifact.parent.glob("*.evidence"))


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        pytest.param({"signer": "file:/nowhere/key.pem"}, "KEY_MISSING", id="no-such-key"),
        pytest.param({"signer": "vault:key"}, "USAGE", id="unknown-scheme"),
        pytest.param({"sealflow_conn_id": "absent"}, "CONNECTION_MISSING", id="no-such-connection"),
        pytest.param({"sealflow_conn_id": "leaky"}, "CONNECTION_REFUSED", id="connection-with-a-password"),
        pytest.param({"evidence_store": "https://example.org/e"}, "USAGE", id="store-on-the-web"),
        pytest.param({"aws_conn_id": "absent"}, "CONNECTION_MISSING", id="no-such-aws-connection"),
    ],
)
def test_wrong_parameter_fails_for_good(connection, connect, context, artifact, parameters, code):
    from airflow.sdk.exceptions import AirflowFailException

    connect("leaky", password="hunter2-9f2c", extra={"signer": connection.signer})
    with pytest.raises(AirflowFailException, match=code) as caught:
        sign(context, artifact, **parameters)
    assert "hunter2" not in str(caught.value)


def test_no_signer_anywhere_is_said(context, artifact):
    from airflow.sdk.exceptions import AirflowFailException

    with pytest.raises(AirflowFailException, match="SIGNER_MISSING"):
        sign(context, artifact)


def test_arguments_alone_are_enough(context, artifact, key):
    ref = sign(context, artifact, signer=key.signer)
    assert verify(context, ref, identities=f"file:{key.public}") == ref


def test_rendered_mapping_is_explained(connection, context, artifact):
    from airflow.sdk.exceptions import AirflowFailException

    ref = sign(context, artifact)
    with pytest.raises(AirflowFailException, match="tojson"):
        verify(context, str(ref))


def test_store_of_the_operator_wins(connection, connect, context, artifact, monkeypatch, tmp_path):
    """Operator, then connection, then configuration, then beside the artifact."""
    seen = [sign(context, artifact)["evidence"]]
    monkeypatch.setenv("AIRFLOW__SEALFLOW__EVIDENCE_STORE", str(tmp_path / "configured"))
    seen.append(sign(context, artifact)["evidence"])
    connect(extra={"signer": connection.signer, "evidence_store": str(tmp_path / "connected")})
    seen.append(sign(context, artifact)["evidence"])
    seen.append(sign(context, artifact, evidence_store=str(tmp_path / "given"))["evidence"])
    assert [Path(uri).name for uri in seen] == ["measurements.evidence", "configured", "connected", "given"]


def test_own_connection_of_an_operator_replaces_the_default(connect, context, artifact, key):
    connect(password="broken")
    connect("team", extra={"signer": key.signer, "identities": f"file:{key.public}"})
    ref = sign(context, artifact, sealflow_conn_id="team")
    assert verify(context, ref, sealflow_conn_id="team") == ref


def test_constructor_names_are_attributes_and_all_but_trust_is_templated():
    import inspect

    import sealflow_airflow as package

    operators = [getattr(package, name) for name in package.__all__ if name.endswith("Operator")]
    assert len(operators) == 9
    for operator in operators:
        parameters = set(inspect.signature(operator.__init__).parameters) - {"self", "kwargs"}
        # Whom to trust, who can read, what is demanded, and what may be replaced.
        decisive = {"identities", "recipients", "policy", "overwrite", "level", "allowed_signers", "branch", "roots"}
        decisive |= {"read_remote", "kms_keys", "bucket_owner", "allow_accounts", "skip", "strict"}
        decisive |= {"witnesses", "quorum", "checkpoints"}
        if operator.__name__ == "AccessAuditOperator":
            decisive |= {"audit_log", "audit_log_key", "cloudtrail", "roles", "fail_on", "grace"}
        else:
            decisive.add("datasets")
        assert set(operator.template_fields) == parameters - decisive
        parameters -= {"roots"}
        made = operator(task_id="task", **dict.fromkeys(parameters, "value"))
        assert all(getattr(made, name) == "value" for name in parameters)


def test_xcom_arg_makes_a_dependency():
    from airflow.sdk import DAG

    from sealflow_airflow import SignArtifactOperator, VerifyArtifactOperator

    with DAG("dag"):
        signed = SignArtifactOperator(task_id="sign", artifact="/data")
        checked = VerifyArtifactOperator(task_id="verify", artifact=signed.output)
    assert checked.upstream_task_ids == {"sign"}


def test_missing_amazon_provider_names_the_extra(connection, context, artifact, monkeypatch):
    import sys

    from airflow.sdk.exceptions import AirflowFailException

    monkeypatch.setitem(sys.modules, "airflow.providers.amazon.aws.hooks.base_aws", None)
    with pytest.raises(AirflowFailException, match=r"pip install 'sealflow\[airflow,aws\]'"):
        sign(context, artifact, aws_conn_id="aws_default")


@pytest.mark.slow
def test_s3_through_an_aws_connection(connection, connect, context, s3_server, s3_versioned_bucket):
    connect("store", **aws_connection(s3_server))
    client = s3_server.client()
    client.put_object(Bucket=s3_versioned_bucket, Key="models/m.bin", Body=b"model")
    uri = f"s3://{s3_versioned_bucket}/models/m.bin"
    ref = sign(context, uri, aws_conn_id="store")
    assert ref["version_id"]
    assert verify(context, uri, aws_conn_id="store") == ref
    # The reference pins the version, so that a later object at the same key is another artifact.
    client.put_object(Bucket=s3_versioned_bucket, Key="models/m.bin", Body=b"MODEL")
    assert verify(context, ref, aws_conn_id="store") == ref
    from airflow.sdk.exceptions import AirflowFailException

    with pytest.raises(AirflowFailException):
        verify(context, uri, aws_conn_id="store")
