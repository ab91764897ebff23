"""What the gate costs a request of Airflow's API server: looked at, recorded, judged.

Without a network and without Airflow behind it: what is measured is ours, and a database on this machine's disk.

Every report of a state costs the check of its token, a success one question to the database as well. The one success
of a task that has signed outlets is a verification besides, with its durable events of the audit; over S3 that takes
the store's round trips, too: a list, and a read for each piece of evidence.
"""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.table import Timing

#: Most seconds that a request may take longer.
BOUND = 0.001

_BENCH = """
import asyncio, json, os, statistics, sys, time, types, uuid
folder = {folder!r}
import airflow.settings
airflow.settings.initialize()
from airflow.utils.db import initdb
import logging
logging.disable(logging.CRITICAL)
initdb()
import sealflow
from sealflow.actions import context
from sealflow.run_identity import RunIdentity
from airflow.sdk import DAG, Asset, BaseOperator
from airflow.serialization.serialized_objects import LazyDeserializedDAG, DagSerialization
from airflow.dag_processing.collection import update_dag_parsing_results_in_db
from airflow.models.dagbundle import DagBundleModel
from airflow.utils.session import create_session
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from airflow._shared.timezones import timezone
from airflow.utils.state import DagRunState

with DAG("train", schedule=None) as dag:
    BaseOperator(task_id="fit", outlets=[Asset(name="model", uri="file://" + folder + "/models/model")])
    BaseOperator(task_id="plain")
source = folder + "/dag.py"
open(source, "w").close()
dag.fileloc, dag.relative_fileloc = source, "dag.py"
with create_session(scoped=False) as session:
    session.add(DagBundleModel(name="bench"))
    session.flush()
    update_dag_parsing_results_in_db("bench", None, [LazyDeserializedDAG.from_dag(dag)], {{}}, None, set(),
                                     session=session, files_parsed={{("bench", "dag.py")}})
stored = DagSerialization.deserialize_dag(DagSerialization.serialize_dag(dag))
with create_session(scoped=False) as session:
    run = stored.create_dagrun(run_id="r", run_after=timezone.utcnow(), run_type=DagRunType.MANUAL, session=session,
                               triggered_by=DagRunTriggeredByType.TEST, state=DagRunState.RUNNING, logical_date=None,
                               data_interval=None)
    session.flush()
    ids = {{ti.task_id: ti.id for ti in run.get_task_instances(session=session)}}
os.makedirs(folder + "/models", exist_ok=True)
open(folder + "/models/model", "w").write("weights")
identity = RunIdentity("airflow", "train", "fit", "r", None, 0, str(ids["fit"]))
with sealflow.run(sealflow.Surroundings(identity, context.Settings(signer={signer!r}, audit_spool=folder + "/w"))):
    ref = sealflow.sign(folder + "/models/model").as_dict()

from airflow.api_fastapi.execution_api.app import _jwt_generator
from sealflow_airflow.gate.middleware import Gate
from sealflow_airflow.gate.settings import GateSettings
from sealflow_airflow.gate import middleware

TOKENS = {{task: ("Bearer " + _jwt_generator().generate({{"sub": str(one)}})).encode() for task, one in ids.items()}}
known = types.SimpleNamespace(id=ids["fit"])

async def behind(scope, receive, send):
    scope["ti_token"] = known
    await receive()
    await send({{"type": "http.response.start", "status": 204, "headers": []}})
    await send({{"type": "http.response.body", "body": b""}})

answers = []
async def send(message):
    answers.append(message.get("status"))

def success(task, outlets, events):
    body = {{"state": "success", "end_date": "2026-11-23T00:00:00Z", "task_outlets": outlets, "outlet_events": events}}
    return "PATCH", "/execution/task-instances/" + str(ids[task]) + "/state", json.dumps(body).encode()

asset = {{"name": "model", "uri": "file://" + folder + "/models/model"}}
event = {{"dest_asset_key": asset, "extra": {{"sealflow": ref}}}}
REQUESTS = {{
    "other": ("GET", "/api/v2/dags", b""),
    "heartbeat": ("PUT", "/execution/task-instances/" + str(ids["fit"]) + "/heartbeat", b"{{}}"),
    "failed": ("PATCH", "/execution/task-instances/" + str(ids["fit"]) + "/state", b'{{"state": "failed"}}'),
    "read": ("GET", "/execution/variables/key", b""),
    "plain": success("plain", [], []),
    "signed": success("fit", [{{**asset, "type": "Asset"}}], [event]),
}}

async def once(app, method, path, body):
    async def receive():
        return {{"type": "http.request", "body": body, "more_body": False}}
    token = TOKENS["plain" if str(ids["plain"]) in path else "fit"]
    scope = {{"type": "http", "method": method, "path": path, "headers": [(b"authorization", token)]}}
    start = time.perf_counter()
    await app(scope, receive, send)
    return time.perf_counter() - start

async def main():
    gate = Gate(behind, GateSettings("enforce", True))
    await asyncio.sleep(8)  # what is loaded ahead
    found = {{}}
    for name, request in REQUESTS.items():
        number = 30 if name == "signed" else 300
        taken = {{}}
        for what, app in (("bare", behind), ("gate", gate)):
            await once(app, *request)
            answers.clear()
            times = [await once(app, *request) for _ in range(number)]
            assert set(answers) == {{204, None}}, (name, answers[:4])
            taken[what] = statistics.median(times)
        found[name] = taken["gate"] - taken["bare"]
    print(json.dumps(found))

asyncio.run(main())
"""


def measure(folder: Path, rounds: int) -> list[Timing]:
    """Return what the gate adds to requests.

    Args:
        folder: An empty folder.
        rounds: How often each is measured.
    """
    import statistics

    from benchmarks.airflow import make_policy, run_python

    key, ruling = make_policy(folder)
    taken: dict[str, list[float]] = {}
    for turn in range(rounds):
        home = folder / f"home{turn}"
        env = {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__API_AUTH__JWT_SECRET": "a secret of the benchmark, long enough for its algorithm" * 2,
            **ruling,
        }
        for name, seconds in json.loads(
            run_python(_BENCH.format(folder=str(folder), signer=f"file:{key}"), env)
        ).items():
            taken.setdefault(name, []).append(seconds)
    middle = {name: statistics.median(values) for name, values in taken.items()}
    return [
        Timing("gate, a request of another kind", middle["other"], BOUND),
        Timing("gate, a heartbeat", middle["heartbeat"], BOUND),
        Timing("gate, a task that failed", middle["failed"], BOUND),
        Timing("gate, a read that is recorded", middle["read"], BOUND),
        Timing("gate, a success of a task without outlets", middle["plain"], BOUND),
        Timing("gate, a success with one signed outlet, judged", middle["signed"], BOUND),
    ]
