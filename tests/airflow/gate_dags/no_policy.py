"""A DAG file that takes Airflow's policies away, so that nothing guards its tasks."""

import os
from datetime import datetime
from pathlib import Path

import airflow.settings
from airflow.sdk import Asset, dag, task

airflow.settings.task_policy = lambda task: None
airflow.settings.dag_policy = lambda dag: None
os.environ["AIRFLOW__SEALFLOW__POLICY"] = ""
FOLDER = Path(os.environ["GUARD_FOLDER"])


@dag(schedule=None, start_date=datetime(2020, 1, 1), is_paused_upon_creation=False)
def gate_unguarded():
    @task(outlets=[Asset(name="gate-unguarded", uri=f"file://{FOLDER}/models/unguarded")])
    def make():
        (FOLDER / "models").mkdir(parents=True, exist_ok=True)
        (FOLDER / "models" / "unguarded").write_text("weights")

    make()


gate_unguarded()
