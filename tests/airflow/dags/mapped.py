"""Mapped sealed tasks, and one that takes all of their references at once. Its run carries a secret everywhere."""

import os
from pathlib import Path

from airflow.sdk import Connection, dag, get_current_context, task

import sealflow
from sealflow_airflow import sealed_task


@dag(schedule=None, params={"folder": "", "token": ""})
def mapped():
    @task
    def places(params: dict):
        return [str(Path(params["folder"], f"shard-{number}.txt")) for number in range(3)]

    @task.sealed(outputs=["destination"])
    def shard(destination: str):
        context = get_current_context()
        secret = context["params"]["token"]
        # The task itself has good reasons to know the secret; what it hands to sealflow does not hold it.
        assert secret == context["dag_run"].conf["note"] == os.environ["PLANTED"]
        assert secret in Connection.get("vault").password
        Path(destination).write_text(f"{context['ti'].map_index}\n")

    @sealed_task(inputs=["shards"], outputs=["total", "count"])
    def add(shards: list, total: str, count: str):
        numbers = [int(Path(path).read_text()) for path in shards]
        Path(total).write_text(str(sum(numbers)))
        Path(count).write_text(str(len(numbers)))

    @task
    def check(refs: dict):
        with sealflow.verified(refs["total"], producer="airflow:mapped/add") as path:
            assert Path(path).read_text() == "3"
        with sealflow.verified(refs["count"], name="count.txt") as path:
            assert Path(path).read_text() == "3"

    shards = shard.expand(destination=places())
    check(add(shards, total="{{ params.folder }}/total.txt", count="{{ params.folder }}/count.txt"))


mapped()
