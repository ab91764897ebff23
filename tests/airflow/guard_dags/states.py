"""A managed artifact and one that nobody manages, made and used."""

import os
from datetime import timedelta
from pathlib import Path

from airflow.sdk import Asset, dag, task

FOLDER = Path(os.environ["GUARD_FOLDER"])


@dag(schedule=None, default_args={"retries": 2, "retry_delay": timedelta(seconds=0)})
def states():
    for where in ("models", "free"):
        path = FOLDER / where / "state"
        asset = Asset(name=f"state-{where}-{FOLDER.name}", uri=f"file://{path}")

        @task(task_id=f"make_{where}", outlets=[asset])
        def make(path: str):
            Path(path).parent.mkdir(exist_ok=True)
            Path(path).write_text("weights")

        @task(task_id=f"use_{where}", inlets=[asset])
        def use():
            print("was used")

        make(str(path)) >> use()


states()
