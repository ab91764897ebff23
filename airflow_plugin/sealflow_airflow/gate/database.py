"""What Airflow's own database says of a task instance: who it is, and which outlets its DAG declares.

Only what the scheduler and the DAG processor have written is asked, never what a task says of itself.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    import uuid

    from sealflow.run_identity import RunIdentity


class AssetKey(NamedTuple):
    """An asset as Airflow knows it."""

    name: str
    uri: str


@dataclass
class Declared:
    """The outlets of a task as a stored DAG declares them.

    Attributes:
        assets: Assets.
        reported: Those of them of which each success tells.
        names: References by name.
        uris: References by uri.
        aliases: Names of asset aliases.
    """

    assets: set[AssetKey] = field(default_factory=set)
    reported: set[AssetKey] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    uris: set[str] = field(default_factory=set)
    aliases: set[str] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.assets or self.names or self.uris or self.aliases)

    def declares(self, key: AssetKey) -> bool:
        """Tell whether an asset is among them, by itself or by a reference."""
        return key in self.assets or key.name in self.names or key.uri in self.uris

    def add(self, item: Any, *, told: bool = True) -> None:
        """Add an outlet as a stored DAG holds it, decoded or not; the assets of a condition are told by no event."""
        encoded = item.get("__var", item) if isinstance(item, dict) else None
        member = encoded.get if isinstance(encoded, dict) else functools.partial(getattr, item)
        kind = str(item.get("__type", "") if isinstance(item, dict) else type(item).__name__).lower()
        objects = member("objects", None)
        if objects is not None:
            for inner in objects:
                self.add(inner, told=False)
            return
        name, uri = member("name", None), member("uri", None)
        if name and uri:
            key = AssetKey(str(name), str(uri))
            self.assets.add(key)
            if told:
                self.reported.add(key)
        elif uri:
            self.uris.add(str(uri))
        elif name and "alias" in kind:
            self.aliases.add(str(name))
        elif name:
            self.names.add(str(name))


@dataclass(frozen=True)
class Task:
    """A task instance.

    Attributes:
        run: Its identity.
        declared: What the DAG of its run declares, and the latest one where that is another: a worker without
            versioned bundles runs what lies in the file by now.
    """

    run: RunIdentity
    declared: tuple[Declared, ...]

    def declares(self, key: AssetKey) -> bool:
        """Tell whether an asset is an outlet."""
        return any(item.declares(key) for item in self.declared)

    def declares_alias(self, name: str) -> bool:
        """Tell whether an alias is an outlet."""
        return any(name in item.aliases for item in self.declared)

    @property
    def reported(self) -> set[AssetKey]:
        """The assets that a success tells of, whichever of the DAGs it ran."""
        return set.intersection(*(item.reported for item in self.declared)) if self.declared else set()

    @property
    def open_ended(self) -> bool:
        """Whether it may tell of assets that only a run knows."""
        return any(item.aliases or item.names or item.uris for item in self.declared)


def identity_of(instance: uuid.UUID, session: Any) -> tuple[RunIdentity, Any, str] | None:
    """Return a task instance's identity, its DAG's version and id; ``None`` where there is no such instance."""
    from airflow.api_fastapi.execution_api.security import get_team_name_for_ti

    from sealflow.run_identity import RunIdentity

    found = session.execute(_asked(), {"instance": instance}).one_or_none()
    if found is None:
        return None
    dag, task, run, map_index, attempt, version, versioned, bundle = found
    team = get_team_name_for_ti(instance, session) or versioned or bundle or ""
    identity = RunIdentity(
        orchestrator="airflow",
        workflow=dag,
        task=task,
        run=run,
        map_index=None if map_index is None or map_index < 0 else map_index,
        attempt=attempt,
        instance=str(instance),
        team=team,
    )
    return identity, version, dag


@functools.cache
def _asked() -> Any:
    """Return the question after a task instance, made once: making it takes longer than the answer."""
    from airflow.models import DagModel
    from airflow.models.dag_version import DagVersion
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy import bindparam, select

    columns = (
        TaskInstance.dag_id,
        TaskInstance.task_id,
        TaskInstance.run_id,
        TaskInstance.map_index,
        TaskInstance.try_number,
        TaskInstance.dag_version_id,
        DagVersion.bundle_name,
        DagModel.bundle_name,
    )
    return (
        select(*columns)
        .join(DagVersion, DagVersion.id == TaskInstance.dag_version_id, isouter=True)
        .join(DagModel, DagModel.dag_id == TaskInstance.dag_id, isouter=True)
        .where(TaskInstance.id == bindparam("instance"))
    )


def task_of(instance: uuid.UUID, dags: Any) -> Task | None:
    """Return a task instance with what it declares; ``None`` where there is none.

    Args:
        instance: Its id.
        dags: Airflow's ``DBDagBag``.
    """
    from airflow import settings

    # Without a session, which takes longer than the answer.
    with settings.get_engine().connect() as connection:
        found = identity_of(instance, connection)
    if found is None:
        return None
    run, version, dag_id = found
    return Task(run, _remembered(version, dag_id, run.task, dags))


#: Seconds for which what a stored DAG declares is remembered, and the most tasks of which it is.
_KEEP: Final = 10.0
_MOST_KEPT: Final = 10_000
#: Names of one question: databases take so many values, and not many more.
_AT_ONCE: Final = 400
_kept: dict[tuple[Any, str, str], tuple[float, tuple[Declared, ...]]] = {}
_lock = threading.Lock()


def _remembered(version: Any, dag_id: str, task_id: str, dags: Any) -> tuple[Declared, ...]:
    key, now = (version, dag_id, task_id), time.monotonic()
    with _lock:
        until, known = _kept.get(key, (0.0, ()))
    if now < until:
        return known
    from airflow.models.dag_version import DagVersion
    from airflow.utils.session import create_session

    with create_session(scoped=False) as session:
        latest = DagVersion.get_latest_version(dag_id, session=session)
        versions = dict.fromkeys(item for item in (version, getattr(latest, "id", None)) if item is not None)
        found = [_declared(dags.get_dag(item, session=session), task_id) for item in versions]
    declared = tuple(item for item in found if item is not None)
    with _lock:
        if len(_kept) >= _MOST_KEPT:
            _kept.clear()
        _kept[key] = (now + _KEEP, declared)
    return declared


def forget() -> None:
    """Forget what stored DAGs declare."""
    with _lock:
        _kept.clear()


def _declared(dag: Any, task_id: str) -> Declared | None:
    task = None if dag is None else dag.task_dict.get(task_id)
    if task is None:
        return None
    found = Declared()
    listed = task.outlets or ()
    for item in listed if isinstance(listed, (list, tuple)) else (listed,):
        found.add(item)
    return found


def resolve(names: Iterable[str], uris: Iterable[str]) -> list[AssetKey]:
    """Return the active assets of these names or uris, as Airflow looks references up."""
    from airflow.models.asset import AssetModel
    from airflow.utils.session import create_session
    from sqlalchemy import or_, select

    wanted, places = list(dict.fromkeys(names)), list(dict.fromkeys(uris))
    found: dict[AssetKey, None] = {}
    with create_session(scoped=False) as session:
        for start in range(0, max(len(wanted), len(places)), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            asked = or_(AssetModel.name.in_(wanted[part]), AssetModel.uri.in_(places[part]))
            rows = session.execute(select(AssetModel.name, AssetModel.uri).where(AssetModel.active.has(), asked))
            found.update(dict.fromkeys(AssetKey(name, uri) for name, uri in rows))
    return list(found)
