"""Sign a folder, let nobody past who did not sign it, and use the checked bytes.

The verify operator is a gate. Bytes can change behind a gate, so the task that uses them opens the reference that the
operator returned.
"""

import json
from pathlib import Path

from airflow.sdk import dag, task

import sealflow
from sealflow_airflow import SignArtifactOperator, VerifyArtifactOperator


@dag(schedule=None, params={"folder": "/var/lib/models", "evidence_store": "/var/lib/evidence"})
def example_operators():
    @task
    def export(params: dict):
        data = Path(params["folder"], "measurements")
        data.mkdir(exist_ok=True)
        (data / "january.csv").write_text("day,value\n1,20\n2,22\n")
        (data / "units.json").write_text(json.dumps({"value": "degrees Celsius"}))
        return str(data)

    sign = SignArtifactOperator(
        task_id="sign",
        artifact=export(),
        name="measurements",
        evidence_store="{{ params.evidence_store }}",
    )
    verify = VerifyArtifactOperator(
        task_id="verify",
        artifact=sign.output,
        name="measurements",
        producer="airflow:example_operators/sign",
        retries=2,
    )

    @task
    def mean(ref: dict):
        with sealflow.verified(ref, files=["january.csv"]) as path:
            rows = Path(path, "january.csv").read_text().splitlines()[1:]
            return sum(float(row.split(",")[1]) for row in rows) / len(rows)

    mean(verify.output)


example_operators()
