"""One task of each operator, and one that refuses, for what a lineage catalogue learns of them."""

from airflow.sdk import dag

from sealflow_airflow import DvcLineageCheckOperator, SignArtifactOperator, VerifyArtifactOperator


@dag(schedule=None, params={"folder": ""})
def catalogued():
    sign = SignArtifactOperator(task_id="sign", artifact="{{ params.folder }}/model", name="model")
    verify = VerifyArtifactOperator(task_id="verify", artifact=sign.output, producer="airflow:catalogued/sign")
    lineage = DvcLineageCheckOperator(
        task_id="lineage",
        repository="{{ params.folder }}/repository",
        targets=["clean"],
        level="L3",
        allowed_signers=__file__.replace("dags/catalogued.py", "work/catalogued/allowed"),
        branch="refs/heads/main",
    )
    refused = DvcLineageCheckOperator(task_id="refused", repository="{{ params.folder }}/tampered")
    # Not verified bytes but wrong parameters: nothing is known of an artifact.
    lost = SignArtifactOperator(task_id="lost", artifact="{{ params.folder }}/absent")
    verify >> lineage >> [refused, lost]


catalogued()
