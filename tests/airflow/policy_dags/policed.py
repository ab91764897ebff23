"""What a policy lets pass and what it refuses, each in a branch of its own. All may try three times."""

import os
from datetime import timedelta
from pathlib import Path

from airflow.sdk import dag, task

import sealflow
from sealflow_airflow import SignArtifactOperator, VerifyArtifactOperator

MODELS = ("good", "wrong_task", "wrong_key", "locked", "tighter", "loaded", "other_team")


@dag(
    schedule=None,
    params={"folder": "", "trainer": "", "other": ""},
    default_args={"retries": 2, "retry_delay": timedelta(seconds=0)},
)
def policed():
    @task
    def prepare(params: dict):
        for name in (*(f"models/{model}" for model in MODELS), "free/notes"):
            path = Path(params["folder"], name)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(name.encode())

    prepared = prepare()

    @task
    def fit(params: dict) -> dict:
        # No signer anywhere in the DAG: the policy chooses it for this task.
        return {
            name: sealflow.sign(Path(params["folder"], "models", name)).as_dict()
            for name in MODELS
            if name not in ("wrong_task", "wrong_key")
        }

    fitted = fit()
    prepared >> fitted
    wrong_task = SignArtifactOperator(
        task_id="wrong_task", artifact="{{ params.folder }}/models/wrong_task", signer="file:{{ params.trainer }}"
    )
    wrong_key = SignArtifactOperator(
        task_id="wrong_key", artifact="{{ params.folder }}/models/wrong_key", signer="file:{{ params.other }}"
    )
    notes = SignArtifactOperator(task_id="notes", artifact="{{ params.folder }}/free/notes")
    prepared >> [wrong_task, wrong_key, notes]

    for name in ("good", "locked", "tighter", "other_team", "loaded"):
        extra = {"locked": {"identities": "file:/nowhere"}, "tighter": {"policy": os.environ["DRAFT"]}}.get(name, {})
        fitted >> VerifyArtifactOperator(
            task_id=f"gate_{name}", artifact=f"{{{{ params.folder }}}}/models/{name}", **extra
        )
    VerifyArtifactOperator(task_id="gate_wrong_task", artifact=wrong_task.output)
    VerifyArtifactOperator(task_id="gate_wrong_key", artifact=wrong_key.output)
    VerifyArtifactOperator(task_id="gate_notes", artifact=notes.output)

    @task
    def load(refs: dict) -> str:
        with sealflow.verified(refs["loaded"]) as path:
            return Path(path).read_text()

    @task.sealed(inputs=["model"], outputs=["copy"])
    def publish(model: str, copy: str):
        Path(copy).write_bytes(Path(model).read_bytes())

    load(fitted)
    publish(fitted["good"], copy="{{ params.folder }}/models/published")


policed()
