"""DAGs whose authors do in their own process what they like, for a whole Airflow with the gate in its API server."""

import json
import os
from datetime import datetime
from pathlib import Path

from airflow.sdk import Asset, BaseHook, Variable, dag, task

FOLDER = Path(os.environ["GUARD_FOLDER"])
SETTINGS = {"is_paused_upon_creation": False, "start_date": datetime(2020, 1, 1), "schedule": None}


def asset(name: str) -> Asset:
    return Asset(name=f"gate-{name}", uri=f"file://{FOLDER}/models/{name}")


def write(name: str, text: str) -> None:
    path = FOLDER / "models" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def leave_the_guard() -> None:
    from sealflow_airflow import guard

    guard._Guard.after = lambda *_: None


@dag(**SETTINGS)
def gate_good():
    @task(outlets=[asset("good")])
    def make(run_id=None):
        write("good", run_id)

    make()


# The hook that signs is taken out of the process; Airflow emits the event all the same.
@dag(**SETTINGS)
def gate_skipped():
    @task(outlets=[asset("skipped")])
    def make():
        leave_the_guard()
        write("skipped", "weights")

    make()


# As before, and nothing is told of the outlet at all.
@dag(**SETTINGS)
def gate_silent():
    @task(outlets=[asset("silent")])
    def make(**context):
        leave_the_guard()
        write("silent", "weights")
        context["ti"].task.outlets.clear()

    make()


# A task claims an outlet that its DAG does not declare, with a reference of its own making.
@dag(**SETTINGS)
def gate_forged():
    @task
    def make(**context):
        leave_the_guard()
        context["task"].outlets.append(asset("good"))
        place = f"file://{FOLDER}/models/good"
        forged = {"sealflow_ref": 1, "uri": place, "digest": "sha256:" + "0" * 64, "evidence": f"{place}.evidence"}
        context["outlet_events"][asset("good")].extra["sealflow"] = {**forged, "encrypted": False}

    make()


# What the run before has signed is told again.
@dag(**SETTINGS)
def gate_replay():
    @task(outlets=[asset("replay")])
    def make(dag_run=None, **context):
        kept = FOLDER / "replay.json"
        if not kept.exists():
            write("replay", "first")
            return
        leave_the_guard()
        context["outlet_events"][asset("replay")].extra["sealflow"] = json.loads(kept.read_text())

    make()


# Past Airflow's own client: a token of its own making, where the executor leaves the secret in the task's reach.
@dag(**SETTINGS)
def gate_direct():
    @task
    def make(ti=None):
        import httpx
        from airflow.api_fastapi.execution_api.app import _jwt_generator
        from airflow.sdk import conf

        token = _jwt_generator().generate({"sub": str(ti.id), "scope": "execution"})
        claimed = asset("good")
        body = {
            "state": "success",
            "end_date": "2026-11-23T00:00:00Z",
            "task_outlets": [{"name": claimed.name, "uri": claimed.uri, "type": "Asset"}],
            "outlet_events": [],
        }
        url = conf.get("core", "execution_api_server_url") + f"task-instances/{ti.id}/state"
        answer = httpx.patch(url, json=body, headers={"Authorization": f"Bearer {token}"}, timeout=30)
        print("answered", answer.status_code, answer.text)

    make()


@dag(**SETTINGS)
def gate_reads():
    @task
    def read():
        print(len(Variable.get("gate_variable")), BaseHook.get_connection("gate_connection").conn_type)

    read()


# Signed by the worker's own key, which the author holds: no ring but the notary's reading looks at the bytes.
@dag(**SETTINGS)
def gate_false():
    @task(outlets=[asset("false")])
    def make(**context):
        import sealflow

        leave_the_guard()
        write("false", "weights")
        ref = sealflow.sign(FOLDER / "models" / "false")
        write("false", "poison!")
        context["outlet_events"][asset("false")].extra["sealflow"] = ref.as_dict()

    make()


for made in (gate_good, gate_skipped, gate_silent, gate_forged, gate_replay, gate_direct, gate_reads, gate_false):
    made()
