"""Read from a bucket only while it is set up as it should be.

The gate asks S3, KMS and CloudTrail how the bucket and its key are set up; `PASS`, `FAIL` or `UNKNOWN` for each check
stands in its log. What is left out needs a reason, which every verdict shows. A refusal ends the task on its first try;
a missing permission or a throttled service may be tried again.
"""

from pathlib import Path

from airflow.sdk import TaskGroup, dag, task

import sealflow
from sealflow_airflow import CheckPostureOperator


@dag(schedule=None, params={"models": "s3://models/churn/", "data": "s3://data/churn/", "model": ""})
def example_gate_on_posture():
    with TaskGroup("gates") as gates:
        for name in ("models", "data"):
            CheckPostureOperator(
                task_id=name,
                location=f"{{{{ params.{name} }}}}",
                skip={"mfa_delete": "object lock protects the versions"},
                retries=2,
            )

    @task
    def score(params: dict):
        with sealflow.verified(params["model"], name="churn") as path:
            return Path(path).stat().st_size

    gates >> score()


example_gate_on_posture()
