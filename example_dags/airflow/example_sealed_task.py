"""Ordinary tasks that sign what they write and open only what is signed.

The connection ``sealflow_default`` says with which key to sign and whose signatures to believe.
"""

from pathlib import Path

from airflow.sdk import dag, task

import sealflow


@dag(schedule=None, params={"folder": "/var/lib/models"})
def example_sealed_task():
    @task
    def train(params: dict):
        model = Path(params["folder"], "model.json")
        model.write_text('{"slope": 2, "intercept": 1}')
        return sealflow.sign(model).as_dict()

    @task(retries=2)
    def score(ref: dict):
        with sealflow.verified(ref) as path:  # a private copy: these bytes, and no others, were checked
            return len(Path(path).read_text())

    score(train())


example_sealed_task()
