"""An API server's surroundings for tests of the pages: an audit log, Airflow's database, users, and the pages."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from sealflow.audit.entry import Chain
from sealflow.audit.event import AuditEvent
from sealflow.run_identity import RunIdentity
from tests.core.audit.logs import MadeLog

#: Digests of artifacts.
DATA, MODEL, SCORES = (f"sha256:{number:064x}" for number in (1, 2, 3))
KEY = "sha256:" + "ab" * 32


def told(
    action: str = "verify",
    outcome: Any = "passed",
    *,
    dag: str = "train",
    task: str = "fit",
    run: str = "manual__1",
    orchestrator: Any = "airflow",
    map_index: int | None = None,
    **members: Any,
) -> AuditEvent:
    """An outcome."""
    who = RunIdentity(orchestrator, dag, task, run, map_index, attempt=1)
    return AuditEvent(action, "outcome", who, outcome=outcome, **members)


class Log(MadeLog):
    """An audit log that is told of outcomes."""

    def tell(self, *events: AuditEvent) -> None:
        """Append events, each with its intent, by a writer of their own."""
        self.add(lines(events))

    @property
    def key_file(self) -> Path:
        """The file of its verifier key."""
        path = self.path().parent.parent / "log.vkey"
        path.write_text(f"{self.key}\n")
        return path


def lines(events: Iterable[AuditEvent]) -> list[bytes]:
    """Return entries of events, each after its intent."""
    chain = Chain()
    made = []
    for event in events:
        intent = AuditEvent(event.action, "intent", event.run, artifact=event.artifact)
        made += [chain.add(item.to_json()).line for item in (intent, event)]
    return made


#: A run that reads, makes and hands on; and one that is refused.
STORY = (
    told("sign", "done", dag="prepare", task="clean", artifact="s3://lake/data", digest=DATA, key=KEY),
    told(artifact="s3://lake/data", digest=DATA, producer="airflow:prepare/clean", signers=(KEY,), rule="data"),
    told("sign", "done", artifact="s3://models/churn", digest=MODEL, key=KEY, rule="models"),
    told(dag="score", task="load", artifact="s3://models/churn", digest=MODEL, producer="airflow:train/fit",
         signers=(KEY,)),
    told(
        outcome="failed", dag="score", task="load", run="manual__2", artifact="s3://models/churn",
        digest=SCORES, codes=("FILE_CHANGED", "SIGNATURE_INVALID"), rule="models",
    ),
    told("verify", "unverifiable", dag="score", task="load", run="manual__3", codes=("BACKEND_UNAVAILABLE",)),
    told("sign", "error", dag="train", run="manual__4", codes=("KEY_MISSING",)),
    told("verify", "passed", orchestrator="kfp", dag="pipeline", task="step", run="r1", artifact="s3://models/churn"),
)  # fmt: skip


@contextlib.contextmanager
def database(path: Path) -> Iterator[Any]:
    """Airflow's metadata database, empty, in place of the process's own."""
    from airflow import settings
    from airflow.models import import_all_models
    from airflow.models.base import Base
    from sqlalchemy import create_engine
    from sqlalchemy.orm import scoped_session, sessionmaker
    from sqlalchemy.pool import NullPool

    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool)
    import_all_models()
    Base.metadata.create_all(engine)
    maker = sessionmaker(engine, autoflush=False, expire_on_commit=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "engine", engine)
        patch.setattr(settings, "NonScopedSession", maker)
        patch.setattr(settings, "Session", scoped_session(maker))
        yield engine
    engine.dispose()


def store_dags(dags: Mapping[str, Iterable[str]], *, triggered: Iterable[str] = ()) -> None:
    """Put DAGs into the database.

    Args:
        dags: Their names, and the assets that each one's tasks make.
        triggered: Names of those whose tasks a trigger would start, where no guard can stand.
    """
    from airflow.models.dag import DagModel
    from airflow.models.dagbundle import DagBundleModel
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.sdk import DAG, Asset, BaseOperator
    from airflow.serialization.serialized_objects import LazyDeserializedDAG
    from airflow.utils.session import create_session

    begun = set(triggered)
    with create_session() as session:
        if session.get(DagBundleModel, "bundle") is None:
            session.add(DagBundleModel(name="bundle"))
            session.flush()
        for name, uris in dags.items():
            with DAG(name, schedule=None) as dag:
                for number, uri in enumerate(uris):
                    task = BaseOperator(task_id=f"make_{number}", outlets=[Asset(name=f"{name}-{number}", uri=uri)])
                    if name in begun:
                        task.start_from_trigger = True
            session.add(DagModel(dag_id=name, bundle_name="bundle", fileloc="/dags/x.py", relative_fileloc="x.py"))
            session.flush()
            SerializedDagModel.write_dag(LazyDeserializedDAG.from_dag(dag), bundle_name="bundle", session=session)


class Users:
    """Airflow's auth manager, with permissions for each DAG. A token is the name of its user.

    Args:
        may: What each user may see: DAGs, ``*`` for all and everything else; ``-plugins`` for no pages at all,
            ``-audit`` for no audit logs.
    """

    def __init__(self, may: Mapping[str, Iterable[str]]) -> None:
        self.may = {name: frozenset(items) for name, items in may.items()}

    async def get_user_from_token(self, token: str) -> str:
        from jwt import InvalidTokenError

        if token not in self.may:
            raise InvalidTokenError("no such token")
        return token

    def is_authorized_view(self, *, access_view: Any, user: str) -> bool:
        return access_view.name == "PLUGINS" and "-plugins" not in self.may[user]

    def is_authorized_dag(self, *, method: str, user: str, access_entity: Any = None, details: Any = None) -> bool:
        assert method == "GET"
        mine = self.may[user]
        if access_entity is not None and access_entity.name == "AUDIT_LOG" and "-audit" in mine:
            return False
        if "*" in mine:
            return True
        # As FAB's: what is asked of no DAG is asked of all, or of the entity alone.
        return access_entity is not None if details is None else details.id in mine

    def get_authorized_dag_ids(self, *, user: str, method: str) -> set[str]:
        from sealflow_airflow.ui.access import known_dags

        return {dag for dag in known_dags() if "*" in self.may[user] or dag in self.may[user]}


def configured(**options: str) -> Iterator[None]:
    """Set options of ``[sealflow]``."""
    from airflow.configuration import conf

    with pytest.MonkeyPatch.context() as patch:
        for name, value in options.items():
            patch.setenv(f"AIRFLOW__SEALFLOW__{name.upper()}", value)
        assert all(conf.get("sealflow", name) == value for name, value in options.items())
        yield
