"""The operators that send, fetch and promote, in a task context, over the real core; and how Airflow stops them."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import sealflow
from tests.airflow.conftest import aws_connection
from tests.servers.fault_proxy import Fault, FaultProxy
from tests.trees import flip_byte

pytestmark = pytest.mark.airflow

MIB = 1 << 20
#: Seconds after which Airflow has had enough, and for which a request hangs.
SOON = 5.0


@pytest.fixture
def team(tmp_path: Path) -> str:
    """A key that opens."""
    (tmp_path / "team.key").write_bytes(bytes(range(32)))
    return f"aes:{tmp_path}/team.key"


@pytest.fixture
def connected(connection, connect, key, team) -> str:
    """The default connection signs, trusts, encrypts and opens."""
    connect(extra={"signer": key.signer, "identities": {"trainer": f"file:{key.public}"}, "recipients": [team]})
    return team


def upload(context: dict[str, Any], source: Any, destination: Any, **parameters: Any) -> dict[str, Any]:
    from sealflow_airflow import EncryptedUploadOperator

    operator = EncryptedUploadOperator(task_id="up", source=source, destination=str(destination), **parameters)
    return operator.execute(context)


def download(context: dict[str, Any], artifact: Any, destination: Any, **parameters: Any) -> dict[str, Any]:
    from sealflow_airflow import EncryptedDownloadOperator

    operator = EncryptedDownloadOperator(task_id="down", artifact=artifact, destination=str(destination), **parameters)
    return operator.execute(context)


def promote(context: dict[str, Any], source: Any, destination: Any, **parameters: Any) -> dict[str, Any]:
    from sealflow_airflow import PromoteArtifactOperator

    operator = PromoteArtifactOperator(task_id="on", source=source, destination=str(destination), **parameters)
    return operator.execute(context)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_there_and_back(connected, context, artifact, tmp_path):
    ref = upload(context, str(artifact), tmp_path / "store" / "m.enc", name="measurements")
    assert ref["encrypted"] is True
    assert sorted(ref) == ["digest", "encrypted", "evidence", "sealflow_ref", "uri"]
    stored = b"".join(files(tmp_path / "store").values())
    assert not [word for word in (b"january", b"units", b"day,value", b"1,20") if word in stored]

    copy = download(context, json.dumps(ref), tmp_path / "copy", name="measurements", producer="airflow:train/fit")
    assert files(tmp_path / "copy") == files(artifact)
    assert (copy["digest"], copy["encrypted"]) == (ref["digest"], False)
    assert copy["uri"] == (tmp_path / "copy").as_uri()
    assert context["ti"].pushed["verdict"]["status"] == "passed"
    # Its evidence came along: whoever gets the copy's reference checks it again.
    assert sealflow.verify(copy, identities={"trainer": f"file:{tmp_path}/signing.pub.pem"}).passed


def test_once_more_with_the_same_content_is_a_success(connected, context, artifact, tmp_path):
    first = upload(context, str(artifact), tmp_path / "m.enc")
    before = (tmp_path / "m.enc").read_bytes()
    assert upload(context, str(artifact), tmp_path / "m.enc") == first
    assert (tmp_path / "m.enc").read_bytes() == before
    assert download(context, first, tmp_path / "copy") == download(context, first, tmp_path / "copy")
    assert promote(context, first, tmp_path / "p.enc") == promote(context, first, tmp_path / "p.enc")


def test_verify_opens_what_was_sent(connected, connect, context, artifact, key, team, tmp_path):
    from airflow.sdk.exceptions import AirflowFailException

    from sealflow_airflow import VerifyArtifactOperator

    ref = upload(context, str(artifact), tmp_path / "m.enc")
    assert VerifyArtifactOperator(task_id="v", artifact=ref).execute(context) == ref
    connect("no_keys", extra={"identities": f"file:{key.public}"})
    given = {"artifact": ref, "sealflow_conn_id": "no_keys"}
    assert VerifyArtifactOperator(task_id="v", recipients=team, **given).execute(context) == ref
    with pytest.raises(AirflowFailException, match="RECIPIENT_MISSING"):
        VerifyArtifactOperator(task_id="v", **given).execute(context)


def test_promotion_keeps_the_object_and_its_chain(connected, context, artifact, key, tmp_path):
    ref = upload(context, str(artifact), tmp_path / "dev" / "m.enc", name="measurements")
    promoted = promote(context, ref, tmp_path / "prod" / "m.enc", producer="airflow:train/fit")
    assert promoted == {
        **ref,
        "uri": (tmp_path / "prod" / "m.enc").as_uri(),
        "evidence": (tmp_path / "prod" / "m.enc.evidence").as_uri(),
    }
    assert (tmp_path / "prod" / "m.enc").read_bytes() == (tmp_path / "dev" / "m.enc").read_bytes()
    assert context["ti"].pushed["verdict"]["status"] == "passed"
    assert list((tmp_path / "prod").rglob("promotion-*.json"))
    assert download(context, promoted, tmp_path / "copy")["digest"] == ref["digest"]


# ------------------------------------------------------------------------------------------------------- refusals


def _flip(folder: Path) -> dict[str, Any]:
    flip_byte(folder / "m.enc", (folder / "m.enc").stat().st_size // 2)
    return {}


def _cut(folder: Path) -> dict[str, Any]:
    (folder / "m.enc").write_bytes((folder / "m.enc").read_bytes()[:-1])
    return {}


def _strip(folder: Path) -> dict[str, Any]:
    for path in folder.rglob("*.json"):
        path.unlink()
    return {}


def _in_clear(folder: Path) -> dict[str, Any]:
    (folder / "m.enc").write_bytes(b"day,value\n1,20\n")
    return {}


def _other_key(folder: Path) -> dict[str, Any]:
    (folder / "other.key").write_bytes(bytes(32))
    return {"recipients": f"aes:{folder}/other.key"}


ATTACKS = {
    "flipped-byte": (_flip, "MESSAGE_ALTERED"),
    "cut": (_cut, "MESSAGE_ALTERED"),
    "stripped-evidence": (_strip, "ENCRYPTION_UNBOUND"),
    "something-in-clear-instead": (_in_clear, "ENCRYPTION_UNBOUND"),
    "other-key": (_other_key, "RECIPIENT_MISSING"),
    "other-name": (lambda _: {"name": "model"}, "CONTEXT_MISMATCH"),
    "other-producer": (lambda _: {"producer": "airflow:train/other"}, "PRODUCER_MISMATCH"),
}


@pytest.mark.parametrize("act", [download, promote])
@pytest.mark.parametrize(("attack", "code"), ATTACKS.values(), ids=ATTACKS.keys())
def test_refused_for_good_and_nothing_is_there(connected, context, artifact, tmp_path, act, attack, code):
    from airflow.sdk.exceptions import AirflowFailException

    folder = tmp_path / "store"
    ref = upload(context, str(artifact), folder / "m.enc")
    parameters = attack(folder)
    with pytest.raises(AirflowFailException, match=code):
        act(context, ref, tmp_path / "out" / "copy", **parameters)
    verdict = context["ti"].pushed["verdict"]
    assert verdict["status"] == "failed"
    assert code in [finding["code"] for finding in verdict["findings"]]
    assert not [path for path in tmp_path.glob("out/*") if not path.name.startswith(".")]


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        pytest.param({"recipients": "aes:/nowhere/team.key"}, "KEY_MISSING", id="no-such-key"),
        pytest.param({"recipients": "vault:key"}, "USAGE", id="unknown-scheme"),
        pytest.param({"recipients": [1]}, "USAGE", id="no-uri"),
        pytest.param({"signer": "file:/nowhere/key.pem"}, "KEY_MISSING", id="no-such-signer"),
        pytest.param({"sealflow_conn_id": "signs_only"}, "RECIPIENT_MISSING", id="no-recipient-anywhere"),
        pytest.param({"aws_conn_id": "absent"}, "CONNECTION_MISSING", id="no-such-aws-connection"),
        pytest.param({"source": "/nowhere/model"}, "ARTIFACT_MISSING", id="nothing-there"),
        pytest.param({"source": {"sealflow_ref": 1}}, "PromoteArtifactOperator", id="a-reference"),
        pytest.param({"source": "{'sealflow_ref': 1}"}, "PromoteArtifactOperator", id="a-rendered-reference"),
    ],
)
def test_wrong_parameter_of_an_upload_fails_for_good(connected, connect, context, artifact, key, parameters, code):
    from airflow.sdk.exceptions import AirflowFailException

    connect("signs_only", extra={"signer": key.signer})
    destination = artifact.parent / "out" / "m.enc"
    with pytest.raises(AirflowFailException, match=code):
        upload(context, parameters.pop("source", str(artifact)), destination, **parameters)
    assert not destination.exists()


@pytest.mark.parametrize("act", [upload, download, promote])
def test_something_else_at_the_destination_stays(connected, context, artifact, tmp_path, act):
    from airflow.sdk.exceptions import AirflowFailException

    given: Any = str(artifact) if act is upload else upload(context, str(artifact), tmp_path / "m.enc")
    there = tmp_path / "there"
    there.write_bytes(b"mine")
    with pytest.raises(AirflowFailException, match="ARTIFACT_EXISTS"):
        act(context, given, there)
    assert there.read_bytes() == b"mine"
    assert act(context, given, there, overwrite=True)["uri"] == there.as_uri()


@pytest.mark.parametrize("act", [upload, download, promote])
def test_unreachable_store_may_be_tried_again(connected, context, artifact, tmp_path, closed_port, act):
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    given, there = (str(artifact), "s3://bucket/m.enc") if act is upload else ("s3://bucket/m.enc", tmp_path / "copy")
    with pytest.raises(AirflowException, match="BACKEND_UNAVAILABLE") as caught:
        act(context, given, there)
    assert not isinstance(caught.value, AirflowFailException)
    if act is not upload:
        assert context["ti"].pushed["verdict"]["status"] == "unverifiable"


@pytest.mark.parametrize("act", [download, promote])
def test_rendered_mapping_is_explained(connected, context, artifact, tmp_path, act):
    from airflow.sdk.exceptions import AirflowFailException

    ref = upload(context, str(artifact), tmp_path / "m.enc")
    with pytest.raises(AirflowFailException, match="tojson"):
        act(context, str(ref), tmp_path / "copy")


def test_catalogues_learn_what_was_sent_and_fetched(connected, context, artifact, tmp_path):
    from sealflow_airflow import EncryptedDownloadOperator, EncryptedUploadOperator

    sent = EncryptedUploadOperator(task_id="up", source=str(artifact), destination=str(tmp_path / "m.enc"))
    ref = sent.execute(context)
    (written,) = sent.get_openlineage_facets_on_complete(None).outputs
    fetched = EncryptedDownloadOperator(task_id="down", artifact=ref, destination=str(tmp_path / "copy"))
    fetched.execute(context)
    (read,) = fetched.get_openlineage_facets_on_complete(None).inputs
    assert (written.namespace, written.name) == (read.namespace, read.name) == ("file", str(tmp_path / "m.enc"))
    assert {item.facets["version"].datasetVersion for item in (written, read)} == {ref["digest"]}


# ------------------------------------------------------------------------------- Airflow says when it is enough


@pytest.fixture
def store(s3_server, s3_bucket, connect) -> Iterator[tuple[Any, str, FaultProxy]]:
    """A real S3 server behind a proxy, an aws connection ``store`` to it, and a bucket."""
    with FaultProxy(s3_server.endpoint_url) as proxy:
        connect("store", **aws_connection(s3_server, proxy.endpoint))
        yield replace(s3_server), s3_bucket, proxy


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A file of several parts."""
    path = tmp_path / "model.bin"
    path.write_bytes(os.urandom(MIB) * 40)
    return path


@pytest.mark.parametrize(
    "config",
    [
        pytest.param({}, id="nothing-said"),
        pytest.param({"s3": {"addressing_style": "path"}, "retries": {"max_attempts": 2}}, id="other-settings"),
    ],
)
def test_a_connection_to_a_store_that_knows_no_trailing_checksums(
    connected, connect, context, s3_server, s3_bucket, artifact, tmp_path, config
):
    """Over TLS boto3 adds them unless it is told otherwise, and Ceph and older releases of MinIO refuse them."""
    if s3_server.kind == "moto":
        pytest.skip("speaks no TLS")
    fields = aws_connection(s3_server, s3_server.secure_url)
    extra = {**fields["extra"], "verify": s3_server.ca, "config_kwargs": config}
    connect("tls", **(fields | {"extra": extra}))
    ref = upload(context, str(artifact), f"s3://{s3_bucket}/m.enc", overwrite=True, aws_conn_id="tls")
    download(context, ref, tmp_path / "back", aws_conn_id="tls")
    assert files(tmp_path / "back") == files(artifact)


def in_task(operator: Any, context: dict[str, Any], seconds: float = 0) -> Any:
    """Execute as Airflow's task runner does: with its timeout, and its handler for SIGTERM."""
    from airflow.sdk.exceptions import AirflowTaskTimeout
    from airflow.sdk.execution_time.timeout import timeout

    before = signal.signal(signal.SIGTERM, lambda *_: operator.on_kill())
    try:
        if not seconds:
            return operator.execute(context)
        with timeout(seconds):
            return operator.execute(context)
    except AirflowTaskTimeout:
        operator.on_kill()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def stop(proxy: FaultProxy, how: str, when: Callable[[Any], bool]) -> None:
    """Let requests hang until the timeout comes; or let a signal come with the first of them."""
    if how == "signal":
        proxy.add(Fault("call", when=when, action=lambda seen: os.kill(os.getpid(), signal.SIGTERM)))
    proxy.add(Fault("slow", when=when, times=99, seconds=SOON))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["timeout", "signal"])
def test_upload_stopped_in_the_middle_goes_on(connected, context, store, model, how):
    from airflow.sdk.exceptions import AirflowTaskTimeout

    from sealflow_airflow import EncryptedUploadOperator

    server, bucket, proxy = store
    client = server.client()
    uri = f"s3://{bucket}/models/m.enc"
    operator = EncryptedUploadOperator(
        task_id="up", source=str(model), destination=uri, overwrite=True, aws_conn_id="store"
    )
    stop(proxy, how, when=lambda seen: int(seen.query.get("partNumber", 0)) > 2)
    with pytest.raises(AirflowTaskTimeout if how == "timeout" else SystemExit):
        in_task(operator, context, seconds=SOON if how == "timeout" else 0)
    assert not [item["Key"] for item in client.list_objects_v2(Bucket=bucket).get("Contents", ())]
    sent = {seen.query["partNumber"] for seen in proxy.seen("UploadPart") if seen.status == 200}
    assert {"1", "2"} <= sent

    proxy.clear()
    proxy.requests.clear()
    ref = in_task(operator, context)
    again = {seen.query["partNumber"] for seen in proxy.seen("UploadPart")}
    # What was there stayed there.
    assert not again & sent
    assert [item["Key"] for item in client.list_objects_v2(Bucket=bucket, Prefix="models/m.enc").get("Contents", ())]
    with sealflow.verified(ref, identities=f"file:{model.parent}/signing.pub.pem", recipients=connected,
                           storages=sealflow.Storages(s3_client=client)) as path:  # fmt: skip
        assert Path(path).read_bytes() == model.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["timeout", "signal"])
def test_download_stopped_in_the_middle_goes_on(connected, context, store, model, tmp_path, how):
    from airflow.sdk.exceptions import AirflowTaskTimeout

    from sealflow_airflow import EncryptedDownloadOperator

    _, bucket, proxy = store
    ref = upload(context, str(model), f"s3://{bucket}/m.enc", overwrite=True, aws_conn_id="store")
    there = tmp_path / "out" / "model.bin"
    operator = EncryptedDownloadOperator(task_id="d", artifact=ref, destination=str(there), aws_conn_id="store")
    proxy.requests.clear()

    def beyond(seen: Any) -> bool:
        first = seen.headers.get("range", "").removeprefix("bytes=").partition("-")[0]
        # The end of the object is read first: there lies its index.
        return first.isdigit() and 20 * MIB < int(first) < 38 * MIB

    stop(proxy, how, when=beyond)
    with pytest.raises(AirflowTaskTimeout if how == "timeout" else SystemExit):
        in_task(operator, context, seconds=SOON if how == "timeout" else 0)
    assert not there.exists()
    assert all(path.name.startswith(".") for path in there.parent.iterdir())

    proxy.clear()
    proxy.requests.clear()
    in_task(operator, context)
    assert there.read_bytes() == model.read_bytes()
    assert [path.name for path in there.parent.iterdir() if path.name.startswith(".")] == []


def test_a_signal_when_nothing_runs_does_nothing(connected, context, artifact, tmp_path):
    from sealflow_airflow import EncryptedUploadOperator

    operator = EncryptedUploadOperator(task_id="up", source=str(artifact), destination=str(tmp_path / "m.enc"))
    operator.on_kill()
    operator.execute(context)
    operator.on_kill()


@pytest.mark.slow
def test_the_log_tells_how_it_goes(connected, context, store, model, monkeypatch, capsys):
    from sealflow.actions.progress import ProgressLines

    _, bucket, proxy = store
    monkeypatch.setitem(ProgressLines.__init__.__kwdefaults__, "interval", 0.05)
    proxy.add(Fault("slow", when="UploadPart", times=9, seconds=0.2))
    upload(context, str(model), f"s3://{bucket}/m.enc", overwrite=True, aws_conn_id="store")
    lines = [line for line in capsys.readouterr().out.splitlines() if "Sending: " in line]
    assert lines
    # Where a machine is busy the first lines tell of nothing yet, and of no end.
    assert all(" of 40.0 MiB (" in line and "/s" in line for line in lines)
    assert any("/s, " in line for line in lines)
