"""The DAG of the README."""

from pathlib import Path

from airflow.sdk import dag, task

import sealflow


@dag(schedule=None, params={"model": "/var/lib/models/model.json"})
def readme_dag():
    @task
    def train(params: dict):
        Path(params["model"]).write_text('{"slope": 2, "intercept": 1}')
        return sealflow.sign(params["model"]).as_dict()  # XCom carries a reference, not a bare path

    @task(retries=2)
    def score(model: dict):
        with sealflow.verified(model) as path:  # a private copy of exactly the bytes that were checked
            return Path(path).read_text()  # a changed byte fails the first try, whatever the retries

    score(train())


readme_dag()
