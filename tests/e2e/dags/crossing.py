"""Both sides of a crossing: a DAG that signs for a pipeline, and one that takes what the pipeline made."""

from datetime import timedelta
from pathlib import Path

from airflow.sdk import dag, task

import sealflow
from sealflow_airflow import SignArtifactOperator, VerifyArtifactOperator

TRIES = {"retries": 2, "retry_delay": timedelta(seconds=0)}


@dag(schedule=None, params={"folder": "", "key": ""}, default_args=TRIES)
def crossing():
    @task
    def fit(params: dict):
        # The policy chooses the key.
        model = Path(params["folder"], "models", "fitted")
        model.write_text("weights")
        sealflow.sign(model)

    @task
    def stray(params: dict):
        # The same key in another task of the same DAG.
        model = Path(params["folder"], "models", "stray")
        model.write_text("weights of somebody else")
        sealflow.sign(model, signer=f"file:{params['key']}")

    @task
    def notes(params: dict):
        path = Path(params["folder"], "free", "notes")
        path.write_text("notes")
        sealflow.sign(path)

    fitted = fit()
    [fitted, stray(), notes()]
    fitted >> VerifyArtifactOperator(task_id="peek", artifact="{{ params.folder }}/models/fitted")


@dag(schedule=None, params={"scores": "", "copied": ""}, default_args=TRIES)
def crossing_back():
    gate = VerifyArtifactOperator(task_id="gate", artifact="{{ params.scores }}")

    @task
    def read(ref: dict) -> str:
        with sealflow.verified(ref) as path:
            return Path(path).read_text()

    read(gate.output)
    signed_again = SignArtifactOperator(task_id="signed_again", artifact="{{ params.copied }}")
    VerifyArtifactOperator(task_id="gate_signed_again", artifact=signed_again.output)


crossing()
crossing_back()
