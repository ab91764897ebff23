"""Every way to refuse, each in a branch of its own, and two in which nobody can say. All may try three times."""

from datetime import timedelta
from pathlib import Path

from airflow.sdk import dag, task

import sealflow
from sealflow_airflow import (
    EncryptedDownloadOperator,
    EncryptedUploadOperator,
    PromoteArtifactOperator,
    SignArtifactOperator,
    VerifyArtifactOperator,
)


def make(path: Path) -> str:
    path.write_bytes(b"weights")
    return str(path)


def flip(path: str) -> None:
    data = bytearray(Path(path).read_bytes())
    data[len(data) // 2] ^= 1
    Path(path).write_bytes(data)


@dag(
    schedule=None,
    params={"folder": "", "other_key": ""},
    default_args={"retries": 2, "retry_delay": timedelta(seconds=0)},
)
def refusals():
    @task
    def prepare(params: dict):
        for name in ("gate", "body", "sealed", "good"):
            make(Path(params["folder"], name))

    prepared = prepare()
    signed = {
        name: SignArtifactOperator(task_id=f"sign_{name}", artifact=f"{{{{ params.folder }}}}/{name}")
        for name in ("gate", "body", "sealed", "good")
    }
    prepared >> list(signed.values())
    sent = EncryptedUploadOperator(
        task_id="send", source="{{ params.folder }}/good", destination="{{ params.folder }}/good.enc"
    )
    prepared >> sent

    @task
    def tamper(params: dict):
        for name in ("gate", "body", "sealed", "good.enc"):
            flip(str(Path(params["folder"], name)))

    tampered = tamper()
    [*signed.values(), sent] >> tampered

    gate = VerifyArtifactOperator(task_id="gate", artifact=signed["gate"].output)

    @task
    def behind_the_gate(ref: dict):
        raise AssertionError("a refused artifact was used")

    behind_the_gate(gate.output)

    @task
    def body(ref: dict):
        with sealflow.verified(ref):
            raise AssertionError("a refused artifact was used")

    @task.sealed(inputs=["model"])
    def sealed(model: str):
        raise AssertionError("a refused artifact was used")

    missing_key = SignArtifactOperator(
        task_id="missing_key", artifact="{{ params.folder }}/good", signer="file:{{ params.folder }}/absent.pem"
    )
    nobody = VerifyArtifactOperator(
        task_id="nobody", artifact=signed["good"].output, sealflow_conn_id="sealflow_nobody"
    )
    leaky = VerifyArtifactOperator(task_id="leaky", artifact=signed["good"].output, sealflow_conn_id="sealflow_leaky")
    passes = VerifyArtifactOperator(task_id="passes", artifact=signed["good"].output)
    fetch = EncryptedDownloadOperator(task_id="fetch", artifact=sent.output, destination="{{ params.folder }}/fetched")
    promote = PromoteArtifactOperator(task_id="promote", source=sent.output, destination="{{ params.folder }}/promoted")
    unreachable_store = EncryptedUploadOperator(
        task_id="unreachable_store", source="{{ params.folder }}/good", destination="s3://bucket/key"
    )
    unreachable = VerifyArtifactOperator(task_id="unreachable", artifact="s3://bucket/key")

    @task
    def unreachable_body():
        with sealflow.verified("s3://bucket/key"):
            raise AssertionError("an unverifiable artifact was used")

    tampered >> [
        gate,
        body(signed["body"].output),
        sealed(signed["sealed"].output),
        missing_key,
        nobody,
        leaky,
        passes,
        fetch,
        promote,
        unreachable,
        unreachable_store,
        unreachable_body(),
    ]


refusals()
