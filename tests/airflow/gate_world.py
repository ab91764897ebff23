"""Airflow's own Execution API over its own database, in this process, with the gate before it and a policy in force."""

from __future__ import annotations

import functools
import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import sealflow
from sealflow.actions import context
from sealflow.policy.source import forget
from sealflow.run_identity import RunIdentity
from tests.audit_events import read_events
from tests.e2e.admin import Admin, rule
from tests.pki import KeyPair, write_key

DAG_ID = "train"


@pytest.fixture(scope="module")
def airflow_database(_process_home: Path) -> Path:
    """A database in this process's Airflow home, made once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_HOME", str(_process_home))
        from airflow import settings
        from airflow.utils.db import initdb

        settings.initialize()
        if not (_process_home / "airflow.db").exists() or not (_process_home / "made").exists():
            initdb()
            (_process_home / "made").touch()
    return _process_home


@functools.cache
def _execution_api() -> Any:
    """Airflow's application, made once: that takes a second."""
    from airflow.api_fastapi.app import create_app

    return create_app(apps="execution")


class World:
    """A DAG, its runs, a policy, and Airflow's Execution API.

    Args:
        folder: Where everything lies.
        patch: Sets what holds for one test.
    """

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        from airflow.api_fastapi.common.dagbag import create_dag_bag

        self.folder, self.patch = folder, patch
        self.admin = Admin(folder / "admin")
        self.trainer, self.stranger = write_key(folder, "trainer"), write_key(folder, "stranger")
        self.spool = folder / "spool"
        (folder / "models").mkdir()
        self.publish()
        channel = self.admin.channel(managed=[f"{folder}/models/**"])
        patch.setattr("sealflow_airflow.policy.channel", lambda: channel)
        patch.setenv("AIRFLOW__SEALFLOW__AUDIT_SPOOL", str(self.spool))
        # A DAG that is stored again within the default's seconds is not written.
        patch.setenv("AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL", "0")
        patch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "a secret of the test, long enough for its algorithm" * 2)
        self.dag_id = f"{DAG_ID}_{uuid.uuid4().hex[:8]}"
        self.bag = create_dag_bag()
        self.outcome: list[Any] = []

    def publish(self, **fields: Any) -> None:
        forget()
        rules = [rule("models", f"{self.folder}/models/**", "trainer", **fields)]
        self.admin.publish(rules, {"trainer": self.trainer})

    def uri(self, name: str) -> str:
        return f"file://{self.folder}/models/{name}"

    def asset(self, name: str, uri: str = "") -> Any:
        from airflow.sdk import Asset

        return Asset(name=self.asset_name(name), uri=uri or self.uri(name))

    def asset_name(self, name: str) -> str:
        return f"{self.dag_id}-{name}"

    def store(self, **outlets: list[Any]) -> None:
        """Store the DAG as the DAG processor does: a task for each keyword, with these outlets."""
        from airflow.dag_processing.collection import update_dag_parsing_results_in_db
        from airflow.models.dagbundle import DagBundleModel
        from airflow.sdk import DAG, BaseOperator
        from airflow.serialization.serialized_objects import LazyDeserializedDAG
        from airflow.utils.session import create_session

        from sealflow_airflow.gate import database

        with DAG(self.dag_id, schedule=None) as dag:
            for name, listed in outlets.items():
                if name.startswith("mapped"):
                    BaseOperator.partial(task_id=name, outlets=listed).expand_kwargs([{}, {}])
                else:
                    BaseOperator(task_id=name, outlets=listed)
        source = self.folder / f"{self.dag_id}.py"
        source.write_text("# made by a test\n")
        dag.fileloc, dag.relative_fileloc = str(source), source.name
        with create_session(scoped=False) as session:
            if session.get(DagBundleModel, "testing") is None:
                session.add(DagBundleModel(name="testing"))
                session.flush()
            made = LazyDeserializedDAG.from_dag(dag)
            files = {("testing", source.name)}
            update_dag_parsing_results_in_db(
                "testing", None, [made], {}, None, set(), session=session, files_parsed=files
            )
        database.forget()
        self.bag.clear_cache()
        self.dag = dag

    def start(self, run: str = "run-1") -> dict[str, RunIdentity]:
        """Start a run; return the identity of each task instance, mapped ones as ``task[0]``."""
        from airflow._shared.timezones import timezone
        from airflow.serialization.serialized_objects import DagSerialization
        from airflow.utils.session import create_session
        from airflow.utils.state import DagRunState
        from airflow.utils.types import DagRunTriggeredByType, DagRunType

        stored = DagSerialization.deserialize_dag(DagSerialization.serialize_dag(self.dag))
        found = {}
        with create_session(scoped=False) as session:
            made = stored.create_dagrun(
                run_id=run,
                run_after=timezone.utcnow(),
                run_type=DagRunType.MANUAL,
                triggered_by=DagRunTriggeredByType.TEST,
                state=DagRunState.RUNNING,
                session=session,
                logical_date=None,
                data_interval=None,
            )
            session.flush()
            for ti in made.get_task_instances(session=session):
                ti.state, ti.hostname, ti.try_number = "running", "worker", 1
                ti.start_date = timezone.utcnow()
                index = None if ti.map_index < 0 else ti.map_index
                identity = RunIdentity("airflow", self.dag_id, ti.task_id, run, index, 1, str(ti.id), "testing")
                found[ti.task_id if index is None else f"{ti.task_id}[{index}]"] = identity
        return found

    def sign(
        self, identity: RunIdentity, name: str, text: str = "weights", key: KeyPair | None = None
    ) -> dict[str, Any]:
        """Write and sign an artifact as the guard does on a worker; return its reference."""
        path = self.folder / "models" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        settings = context.Settings(signer=(key or self.trainer).signer, audit_spool=str(self.folder / "workers"))
        with sealflow.run(sealflow.Surroundings(replace(identity, team=""), settings)):
            return sealflow.sign(path).as_dict()

    def outlet(self, name: str, uri: str = "") -> dict[str, Any]:
        return {"name": self.asset_name(name), "uri": uri or self.uri(name), "type": "Asset"}

    def event(self, name: str, extra: Any, uri: str = "", **more: Any) -> dict[str, Any]:
        key = {"name": self.asset_name(name), "uri": uri or self.uri(name)}
        return {"dest_asset_key": key, "extra": extra, **more}

    def report(self, outlets: list[Any], events: list[Any], **more: Any) -> dict[str, Any]:
        """Return the message of a success."""
        body = {"state": "success", "end_date": "2026-11-23T00:00:00+00:00", "rendered_map_index": None}
        return {**body, "task_outlets": outlets, "outlet_events": events, **more}

    def claim(self, name: str, ref: Any) -> dict[str, Any]:
        """Return the message of a success with one outlet and this reference."""
        return self.report([self.outlet(name)], [self.event(name, {"sealflow": ref} if ref is not None else {})])

    @contextmanager
    def server(self, mode: str = "enforce", **more: Any) -> Iterator[Any]:
        """Run Airflow's Execution API behind the gate, and return a client of it."""
        from fastapi.testclient import TestClient

        from sealflow_airflow.gate.middleware import Gate
        from sealflow_airflow.gate.settings import GateSettings

        gate = Gate(_execution_api(), GateSettings(mode, **more))
        self.gate = gate
        with TestClient(gate, raise_server_exceptions=False) as client:
            yield client
        # Plain refusals are recorded behind the answer.
        gate._recorders.shutdown()

    def token(self, identity: RunIdentity) -> str:
        from airflow.api_fastapi.execution_api.app import _jwt_generator

        return str(_jwt_generator().generate({"sub": identity.instance, "scope": "execution"}))

    def headers(self, identity: RunIdentity) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token(identity)}", "Content-Type": "application/json"}

    def send(self, client: Any, identity: RunIdentity, body: Any, **headers: str) -> tuple[int, str, str]:
        """Report a state as a worker does; return status, code and sentence."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        path = f"/execution/task-instances/{identity.instance}/state"
        answer = client.patch(path, content=data, headers={**self.headers(identity), **headers})
        detail = answer.json().get("detail", {}) if answer.content else {}
        detail = detail if isinstance(detail, dict) else {}
        return answer.status_code, detail.get("code", ""), detail.get("message", "")

    def emitted(self, name: str) -> list[dict[str, Any]]:
        """Return the extras of the events that Airflow has written of an asset."""
        from airflow.models.asset import AssetEvent, AssetModel
        from airflow.utils.session import create_session
        from sqlalchemy import select

        wanted = select(AssetEvent.extra).join(AssetModel, AssetModel.id == AssetEvent.asset_id)
        with create_session(scoped=False) as session:
            return list(session.scalars(wanted.where(AssetModel.name == self.asset_name(name))))

    def state(self, identity: RunIdentity) -> str:
        from airflow.models.taskinstance import TaskInstance
        from airflow.utils.session import create_session

        with create_session(scoped=False) as session:
            found = session.get(TaskInstance, uuid.UUID(identity.instance))
            assert found is not None
            return str(found.state)

    def recorded(self, action: str = "gate") -> list[dict[str, Any]]:
        """Return the outcome events of an action in the audit spool."""
        found = read_events(self.spool)
        return [event for event in found if event["action"] == action and event["phase"] == "outcome"]


@pytest.fixture
def world(airflow_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A world of its own for each test, over the one database."""
    from sealflow_airflow.gate import access, database

    monkeypatch.setenv("AIRFLOW_HOME", str(airflow_database))
    monkeypatch.setattr(access, "_settled", None)
    yield World(tmp_path, monkeypatch)
    database.forget()
    forget()
