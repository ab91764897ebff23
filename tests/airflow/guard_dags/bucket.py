"""Artifacts in a bucket, by the hook of Airflow's own provider. No word of sealflow in here."""

import os
from datetime import timedelta

from airflow.sdk import Asset, dag, task

BUCKET = os.environ.get("GUARD_BUCKET", "none")


def asset(name: str) -> Asset:
    return Asset(name=f"{BUCKET}-{name}", uri=f"s3://store@{BUCKET}/models/{name}")


def hook():
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook

    return S3Hook("store")


def write(name: str, text: str = "weights") -> None:
    hook().load_string(text, key=f"models/{name}", bucket_name=BUCKET, replace=True)


@dag(schedule=None, default_args={"retries": 2, "retry_delay": timedelta(seconds=0)})
def bucket():
    for name in ("kept", "tampered"):

        @task(task_id=f"make_{name}", outlets=[asset(name)])
        def make(name: str):
            write(name)

        @task(task_id=f"between_{name}")
        def between(name: str):
            if name == "tampered":
                write(name, "poison!")

        @task(task_id=f"use_{name}", inlets=[asset(name)])
        def use(name: str):
            print("read", hook().read_key(f"models/{name}", BUCKET))

        make(name) >> between(name) >> use(name)


bucket()
