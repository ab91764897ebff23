"""A DAG file that takes Airflow's policies away from its own process."""

import os
from pathlib import Path

import airflow.settings
from airflow.sdk import Asset, dag, task

airflow.settings.task_policy = airflow.settings.dag_policy = lambda *_: None

FOLDER = Path(os.environ["GUARD_FOLDER"])


@dag(schedule=None)
def unguarded():
    @task(outlets=[Asset(name=f"by-{FOLDER.name}-policies", uri=f"file://{FOLDER}/models/policies")])
    def policies():
        path = FOLDER / "models" / "policies"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("weights")

    policies()


unguarded()
