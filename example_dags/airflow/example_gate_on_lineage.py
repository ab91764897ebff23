"""Train only on data that is what the DVC repository says it is.

The gate reads every byte of what the stage `clean` needs and makes, trusts no file time and no cache, and runs nothing
of the repository. `L2` holds data, lock, `dvc.yaml` and parameters against each other; `L3` asks for a signed commit
too. A refusal ends the task on its first try, whatever its retries; only what nobody can say is tried again.
"""

import csv
import json
from pathlib import Path

from airflow.sdk import dag, task

import sealflow
from sealflow_airflow import DvcLineageCheckOperator


@dag(schedule=None, params={"repository": "/var/lib/repository", "model": "/var/lib/models/line.json"})
def example_gate_on_lineage():
    gate = DvcLineageCheckOperator(
        task_id="gate", repository="{{ params.repository }}", targets=["clean"], level="L2", retries=2
    )

    @task
    def train(repository: str, params: dict):
        with Path(repository, "clean.csv").open(newline="") as file:
            points = [(float(x), float(y)) for x, y in csv.reader(file)]
        mean_x, mean_y = (sum(column) / len(points) for column in zip(*points, strict=True))
        slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)
        Path(params["model"]).write_text(json.dumps({"slope": slope, "intercept": mean_y - slope * mean_x}))
        return sealflow.sign(params["model"], name="line").as_dict()

    train(gate.output)


example_gate_on_lineage()
