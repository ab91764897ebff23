"""Tells the core which Airflow task is running and which settings hold there. Cheap and silent outside of one."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from airflow.sdk import Context

    from sealflow.actions.context import Surroundings
    from sealflow.policy.source import AdminChannel, BrokenChannel
    from sealflow.run_identity import RunIdentity

#: Most parameter names that provenance records, and the longest: provenance must stay small enough to travel.
MAX_PARAMETERS: Final = 48
MAX_PARAMETER_NAME: Final = 128

#: Folders in which Airflow shows object stores to a task: none.
MOUNTS: Final[Mapping[str, str]] = MappingProxyType({})

_log = logging.getLogger(__name__)


def current() -> Surroundings | None:
    """Return the running task's surroundings, ``None`` outside of a task.

    Raises:
        UsageError: The connection is refused.
        UnavailableError: Airflow does not give the connection out.
    """
    context = _context()
    return None if context is None else surroundings(context)


def identity() -> RunIdentity | None:
    """Return the running task's identity, ``None`` outside of a task."""
    context = _context()
    return None if context is None else identity_of(context)


def admin() -> AdminChannel | BrokenChannel | None:
    """Return the admin's channel as Airflow was configured when this process started."""
    from sealflow_airflow.policy import channel

    return channel()


def surroundings(context: Context, sealflow_conn_id: str | None = None) -> Surroundings:
    """Return the surroundings of the task to which ``context`` belongs.

    Args:
        context: The task's context.
        sealflow_conn_id: The connection, by default the deployment's.

    Raises:
        UsageError: The connection is refused.
        UnavailableError: Airflow does not give the connection out.
    """
    from sealflow.actions.context import Surroundings
    from sealflow_airflow.hooks.sealflow import DEFAULT_CONN_ID, SealflowHook
    from sealflow_airflow.outcome import TaskRefusedError

    settings = SealflowHook(sealflow_conn_id or DEFAULT_CONN_ID).get_conn()
    return Surroundings(
        identity_of(context), settings, _parameters(context), TaskRefusedError, triggered_by=_triggered_by(context)
    )


def _context() -> Context | None:
    # In a process that has not imported Airflow no task is running, and importing it takes seconds.
    if "airflow.sdk" not in sys.modules:
        return None
    from airflow.sdk import get_current_context

    try:
        return get_current_context()
    except RuntimeError:
        return None


def identity_of(context: Context) -> RunIdentity:
    """Return the identity of the task to which a context belongs."""
    from sealflow.run_identity import RunIdentity

    ti = context["ti"]
    map_index = getattr(ti, "map_index", None)
    return RunIdentity(
        orchestrator="airflow",
        workflow=ti.dag_id,
        task=ti.task_id,
        run=ti.run_id,
        map_index=None if map_index is None or map_index < 0 else map_index,
        attempt=ti.try_number,
        instance=str(ti.id),
        team=_team(context),
    )


def _team(context: Context) -> str:
    """Return the team, without one the bundle that the DAG file lies in: both are the deployment's, not the DAG's."""
    team = getattr(context.get("dag_run"), "team_name", None)
    return team or getattr(getattr(context["ti"], "bundle_instance", None), "name", None) or ""


def _triggered_by(context: Context) -> str:
    """Return the user who is said to have started the run. Nobody proves it: it survives when others clear tasks."""
    return str(getattr(context.get("dag_run"), "triggering_user_name", None) or "")


def _parameters(context: Context) -> dict[str, str]:
    """Return names and values of ``params`` and ``dag_run.conf``; the core makes HMACs of the values, or drops them."""
    dag_run = context.get("dag_run")
    merged: dict[str, Any] = {}
    for source in (getattr(dag_run, "conf", None), context.get("params")):
        if isinstance(source, Mapping):
            merged.update(source)
    names = [name for name in sorted(map(str, merged)) if len(name) <= MAX_PARAMETER_NAME][:MAX_PARAMETERS]
    if len(names) < len(merged):
        _log.warning("Provenance records %d of %d parameters.", len(names), len(merged))
    values = {str(name): value for name, value in merged.items()}
    return {name: _text(values[name]) for name in names}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
